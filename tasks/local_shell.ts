/** The user's shell, or one command, in an environment in which every AWS SDK finds the stand-in. */

import { calledFrom } from "./files.ts";
import { UserError, visible } from "./terminal.ts";

/**
 * Runs a command at the user's terminal and returns its exit code. The environment is this process's,
 * which is the stand-in's: see enterStandIn().
 *
 * @throws {UserError} there is no such program
 */
export async function runAtTerminal([program, ...args]: string[]): Promise<number> {
  // Ctrl-C is for the program, which gets it from the terminal.
  const ignore = () => {};
  Deno.addSignalListener("SIGINT", ignore);
  try {
    const command = new Deno.Command(program, {
      args,
      cwd: calledFrom(),
      // The aws CLI and boto3 read AWS_CA_BUNDLE, Node only this.
      env: { NODE_EXTRA_CA_CERTS: Deno.env.get("AWS_CA_BUNDLE")!, PS1: "(stand-in) \\w \\$ " },
      stdin: "inherit",
      stdout: "inherit",
      stderr: "inherit",
    });
    return (await command.spawn().status).code;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new UserError(`Cannot run "${visible(program)}": it is not installed`);
  } finally {
    Deno.removeSignalListener("SIGINT", ignore);
  }
}
