/** This machine's processes: from /proc on Linux, where a slim image has no ps, else from ps. */

export interface Process {
  pid: number;
  command: string;
  /** Ended, but not asked for its exit code yet. */
  isZombie: boolean;
}

export async function listProcesses(): Promise<Process[]> {
  if (Deno.build.os !== "linux") return await listByPs();
  const processes: Process[] = [];
  for await (const { name } of Deno.readDir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const command = await Deno.readTextFile(`/proc/${name}/cmdline`);
      const stat = await Deno.readTextFile(`/proc/${name}/stat`);
      const isZombie = stat.slice(stat.lastIndexOf(")")).startsWith(") Z");
      processes.push({
        pid: Number(name),
        command: command.replaceAll("\0", " ").trim(),
        isZombie,
      });
    } catch {
      // It has ended meanwhile.
    }
  }
  return processes;
}

async function listByPs(): Promise<Process[]> {
  const { stdout } = await new Deno.Command("ps", { args: ["-axo", "pid=,stat=,command="] })
    .output();
  return new TextDecoder().decode(stdout).trim().split("\n").map((line) => {
    const [, pid, stat, command] = line.match(/^\s*(\d+)\s+(\S+)\s+(.*)$/)!;
    return { pid: Number(pid), command, isZombie: stat.startsWith("Z") };
  });
}
