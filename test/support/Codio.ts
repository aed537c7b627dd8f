/**
 * The program `codio` in a process of its own, for specs: what it prints, as it prints it.
 */
import { Effect, type Scope } from "effect"
import { spawn, spawnSync } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { patience } from "./patience.ts"

/** A line of `codio start --json`. */
export interface Line {
  readonly event: string
  readonly time: string
  readonly peer?: string
  readonly target?: string
  readonly addresses?: ReadonlyArray<string>
  readonly reason?: string
  readonly remoteReason?: string
  readonly agentVersion?: string
}

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: ReadonlyArray<string>
  readonly stderr: string
}

export interface Program {
  readonly pid: number
  readonly kill: (signal: NodeJS.Signals) => void
  /** Stops reading what it prints. */
  readonly closeOutput: () => void
  /** The first JSON line that fits, past or to come; fails the test when it has not come within {@link patience}. */
  readonly line: (what: string, fits: (line: Line) => boolean) => Effect.Effect<Line>
  readonly lines: () => ReadonlyArray<Line>
  readonly ended: Effect.Effect<Ended>
}

const bin = fileURLToPath(new URL("../../src/cli/bin.ts", import.meta.url))

/** The variables of this process must not decide a spec. */
const cleanEnvironment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("CODIO_")))

/**
 * Starts the program; it is killed when the scope closes. With `setUp`, commands of a shell, the program runs in a
 * network and a file system of its own, which the commands have changed.
 */
export const codio = (
  args: ReadonlyArray<string>,
  environment: Readonly<Record<string, string>> = {},
  setUp?: string
): Effect.Effect<Program, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => launch(args, environment, setUp)),
    ({ ended, kill }) => Effect.andThen(Effect.sync(() => kill("SIGKILL")), ended)
  )

/** Whether this machine permits the commands of a `setUp`. */
export const isPermitted = (setUp: string): boolean =>
  spawnSync("unshare", ["-mn", "sh", "-c", setUp], { stdio: "ignore" }).status === 0

function launch(
  args: ReadonlyArray<string>,
  environment: Readonly<Record<string, string>>,
  setUp: string | undefined
): Program {
  const [command, ...rest] = setUp === undefined
    ? [process.execPath, bin]
    : ["unshare", "-mn", "sh", "-c", `${setUp} && exec "$0" "$@"`, process.execPath, bin] as const
  const child = spawn(command, [...rest, ...args], {
    env: { ...cleanEnvironment, ...environment },
    stdio: ["ignore", "pipe", "pipe"]
  })
  const stdout: Array<string> = []
  const lines: Array<Line> = []
  const waiting = new Set<() => void>()
  let stderr = ""
  let ended: Ended | undefined
  const look = () => waiting.forEach((check) => check())

  createInterface({ input: child.stdout }).on("line", (text) => {
    stdout.push(text)
    if (text.startsWith("{")) lines.push(JSON.parse(text) as Line)
    look()
  })
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text
  })
  child.on("close", (code, signal) => {
    ended = { code, signal, stdout, stderr }
    look()
  })

  const until = <A>(what: string, get: () => A | undefined): Effect.Effect<A> =>
    Effect.callback<A>((resume) => {
      const check = () => {
        const found = get()
        if (found !== undefined) resume(Effect.succeed(found))
        else if (ended !== undefined) {
          resume(Effect.die(new Error(`codio ended before ${what}: ${JSON.stringify(ended)}`)))
        }
      }
      waiting.add(check)
      check()
      return Effect.sync(() => waiting.delete(check))
    }).pipe(Effect.timeoutOrElse({
      duration: patience,
      orElse: () =>
        Effect.die(new Error(`not within ${patience}: ${what}; stdout ${JSON.stringify(stdout)}; stderr ${stderr}`))
    }))

  return {
    pid: child.pid ?? 0,
    kill: (signal) => void child.kill(signal),
    closeOutput: () => child.stdout.destroy(),
    line: (what, fits) => until(what, () => lines.find(fits)),
    lines: () => lines,
    ended: until("its end", () => ended)
  }
}
