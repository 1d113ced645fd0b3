/** How a person gets to the page: by a browser here, or through SSH from a machine of theirs. */

import { join } from "node:path";
import { shellWord } from "../tasks/commands.ts";
import { temporaryFolder } from "../tasks/files.ts";
import { say } from "../tasks/terminal.ts";

/** Prints the page's address; where this machine has no screen, first how to reach it from another. */
export function printAddress(url: string): void {
  const command = forwarding(Number(new URL(url).port), Deno.env.toObject(), Deno.build.os);
  if (command !== undefined) {
    say(`To see the page, run this on your own machine, and open the address there:\n  ${command}`);
  }
  console.log(`Page: ${url}`);
}

/**
 * The command that makes a port of this machine one of the user's own machine; undefined where this
 * one has a screen. USER and HOST stand for what is not known.
 */
export function forwarding(
  port: number,
  env: Record<string, string | undefined>,
  os: typeof Deno.build.os,
): string | undefined {
  const [client, , host, sshPort] = env.SSH_CONNECTION?.split(" ") ?? [];
  const hasScreen = os === "darwin" || os === "windows" || env.DISPLAY || env.WAYLAND_DISPLAY ||
    env.WSL_DISTRO_NAME;
  if (host === undefined && hasScreen) return undefined;
  const user = env.SUDO_USER ?? env.USER ?? env.USERNAME ?? "USER";
  // A client with a public address came through a translation of addresses, as EC2's.
  const isKnown = host !== undefined && (isPrivate(client) || !isPrivate(host));
  const words = [
    "ssh",
    "-N",
    "-L",
    `${port}:127.0.0.1:${port}`,
    `${user}@${isKnown ? host : "HOST"}`,
  ];
  if (isKnown && sshPort !== "22") words.splice(1, 0, "-p", sshPort);
  return words.map(shellWord).join(" ");
}

/** Whether an address is of a network of its own: RFC 1918, RFC 4193, link-local, or this machine. */
function isPrivate(address: string): boolean {
  return /^(10|127|169\.254|172\.(1[6-9]|2\d|3[01])|192\.168)\.|^(f[cd]|fe80:|::1$)/i.test(address);
}

/** Opens the browser by a file that only this user can read: others see a program's arguments. */
export async function openPage(url: string): Promise<AsyncDisposable> {
  const folder = await temporaryFolder();
  const file = join(folder.path, "page.html");
  const page = `<meta http-equiv="refresh" content="0; url=${url}">`;
  await Deno.writeTextFile(file, page, { mode: 0o600 });
  const [program, ...args] = OPENERS[Deno.build.os] ?? ["xdg-open"];
  try {
    const command = new Deno.Command(program, {
      args: [...args, file],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    });
    command.spawn().unref();
  } catch {
    say(`No browser could be opened with ${program}: open the address above`);
  }
  return folder;
}

const OPENERS: Partial<Record<typeof Deno.build.os, string[]>> = {
  darwin: ["open"],
  windows: ["cmd", "/c", "start", ""],
};
