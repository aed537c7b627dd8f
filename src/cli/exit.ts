/**
 * The end of the process, which no lookup of a name holds up.
 */
import { existsSync } from "node:fs"

/**
 * Ends the process with the code, at once.
 *
 * `process.exit` waits for the threads in which the system resolves names (getaddrinfo), which nobody can interrupt:
 * with a name server that does not answer, for ten seconds and more. A process that becomes another program loses all
 * of its threads at once, so it becomes a shell that exits with the code.
 *
 * Names are still resolved by the system: a resolver of Node's own could be interrupted, and would not know the names
 * of /etc/hosts, mDNS and what else the system is set up for.
 */
export const exit = (code: number): void => {
  const isHeld = process.getActiveResourcesInfo().includes("GetAddrInfoReqWrap")
  // Windows ends threads by itself, and has no `execve`.
  if (isHeld && process.platform !== "win32" && process.execve !== undefined) {
    if (existsSync(shell)) process.execve(shell, [shell, "-c", `exit ${code}`], {})
    process.execve(process.execPath, [process.execPath, "-e", `process.exit(${code})`], {})
  }
  process.exit(code)
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

// POSIX has it here. A container without a shell has at least this Node.
const shell = "/bin/sh"
