/** The command that reaches the page from another machine. */

import assert from "node:assert/strict";
import { forwarding } from "../dev/address.ts";

const CASES: [string, Record<string, string>, typeof Deno.build.os, string | undefined][] = [
  ["a desktop", { DISPLAY: ":0", USER: "ann" }, "linux", undefined],
  ["a desktop with Wayland", { WAYLAND_DISPLAY: "wayland-0" }, "linux", undefined],
  ["WSL, whose browser is Windows' own", { WSL_DISTRO_NAME: "Ubuntu" }, "linux", undefined],
  ["a Mac", { USER: "ann" }, "darwin", undefined],
  ["Windows", {}, "windows", undefined],
  [
    "an instance that translates its address",
    {
      SSH_CONNECTION: "198.51.100.7 50123 172.31.4.5 22",
      USER: "ec2-user",
    },
    "linux",
    "ssh -N -L 8421:127.0.0.1:8421 ec2-user@HOST",
  ],
  [
    "a machine of the same network",
    {
      SSH_CONNECTION: "192.168.1.2 50123 192.168.1.9 22",
      USER: "ann",
      DISPLAY: "localhost:10.0",
    },
    "linux",
    "ssh -N -L 8421:127.0.0.1:8421 ann@192.168.1.9",
  ],
  [
    "a public address and another port",
    {
      SSH_CONNECTION: "198.51.100.7 50123 203.0.113.9 2222",
      SUDO_USER: "ann",
      USER: "root",
    },
    "linux",
    "ssh -p 2222 -N -L 8421:127.0.0.1:8421 ann@203.0.113.9",
  ],
  [
    "IPv6",
    { SSH_CONNECTION: "2001:db8::7 50123 2001:db8::9 22", USER: "ann" },
    "darwin",
    "ssh -N -L 8421:127.0.0.1:8421 ann@2001:db8::9",
  ],
  [
    "no screen and no SSH, as in Session Manager",
    {},
    "linux",
    "ssh -N -L 8421:127.0.0.1:8421 USER@HOST",
  ],
  [
    "a name that is a command",
    { USER: "$(id)" },
    "linux",
    "ssh -N -L 8421:127.0.0.1:8421 '$(id)@HOST'",
  ],
];

Deno.test("forwarding() fills in what is known, where there is no screen", () => {
  for (const [name, env, os, expected] of CASES) {
    assert.equal(forwarding(8421, env, os), expected, name);
  }
});
