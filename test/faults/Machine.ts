/**
 * What the suite takes of the machine: network namespaces and a temporary directory, named after this run and always
 * given back.
 *
 * The scope of {@link Machine} gives them back when the run ends or is interrupted. For a run that cannot, since it
 * crashed or was killed, a guard does: a small process in a session of its own, whose input ends when the run does.
 * What a killed guard left is removed by the next run.
 */
import { Context, Effect, Layer, type Scope } from "effect"
import { execFile, spawn } from "node:child_process"
import { once } from "node:events"
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { rolldown } from "rolldown"

export class Machine extends Context.Service<Machine, {
  /** How the names of this run's namespaces begin. */
  readonly prefix: string
  /** The directory for the nodes' data. */
  readonly directory: string
  /** The file of the peer program. */
  readonly peerProgram: string
  /** A new number for each call, for names. */
  readonly count: Effect.Effect<number>
}>()("codio-network/test/faults/Machine") {
  static readonly layer: Layer.Layer<Machine> = Layer.effect(Machine, Effect.suspend(() => make))
}

/** What the machine lacks for this suite, in words; undefined when it lacks nothing. */
export const lacks: Effect.Effect<string | undefined> = Effect.gen(function*() {
  if (process.platform !== "linux") return "network namespaces need Linux"
  if (process.getuid?.() !== 0) return "network namespaces need root"
  for (const [program, from] of [["ip", "iproute2"], ["nft", "nftables"]] as const) {
    if ((yield* attempt(program, ["-V"])) !== undefined) return `there is no program ${program} here (install ${from})`
  }
  const name = `${prefixOf(process.pid)}-trial`
  const problem = (yield* attempt("ip", ["netns", "add", name])) ??
    (yield* attempt("ip", ["-n", name, "link", "add", "br0", "type", "bridge"])) ??
    (yield* attempt("ip", ["-n", name, "link", "add", "e0", "type", "veth", "peer", "name", "e1"])) ??
    (yield* attempt("ip", ["netns", "exec", name, "nft", "-f", "-"], trial))
  yield* attempt("ip", ["netns", "del", name])
  return problem === undefined ? undefined : `network namespaces are not permitted here (${problem})`
})

/** Runs a command to its end and gives its output; a defect with the error output when it fails. */
export const command = (file: string, args: ReadonlyArray<string>, input = ""): Effect.Effect<string> =>
  Effect.callback<string>((resume) => {
    const child = execFile(file, args, { encoding: "utf8" }, (error, stdout, stderr) => {
      resume(error === null ? Effect.succeed(stdout) : Effect.die(new Error(stderr.trim() || error.message)))
    })
    // The command may end without reading its input.
    child.stdin?.on("error", () => {}).end(input)
  })

/** Kills the processes of a namespace, and removes it. Safe to call twice. */
export const removeNamespace = (name: string): Effect.Effect<void> =>
  Effect.gen(function*() {
    const pids = yield* Effect.catchCause(command("ip", ["netns", "pids", name]), () => Effect.succeed(""))
    for (const pid of pids.split("\n")) {
      if (pid !== "") yield* attempt("kill", ["-9", pid])
    }
    yield* attempt("ip", ["netns", "del", name])
  })

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const family = "codio-faults"

const trial =
  `table bridge trial { chain c { type filter hook forward priority 0; iifname "e0" numgen random mod 100 < 30 drop; }\n}\n`

/** Why a command failed, in one line; undefined when it did not. */
function attempt(file: string, args: ReadonlyArray<string>, input?: string): Effect.Effect<string | undefined> {
  return command(file, args, input).pipe(
    Effect.as(undefined),
    Effect.catchDefect((defect) => Effect.succeed(String((defect as Error).message).split("\n")[0]))
  )
}

/**
 * The time at which a process began, which with its id names it for as long as the machine is up; undefined when it is
 * gone.
 */
function begun(pid: number): string | undefined {
  try {
    // The second field is a name in parentheses, which may hold anything.
    return /^.*\)(?: \S+){19} (\d+)/s.exec(readFileSync(`/proc/${pid}/stat`, "utf8"))?.[1]
  } catch {
    return undefined
  }
}

/** The namespaces whose names begin so. */
function namespaces(prefix: string): ReadonlyArray<string> {
  return existsSync("/run/netns") ? readdirSync("/run/netns").filter((name) => name.startsWith(prefix)) : []
}

function prefixOf(pid: number): string {
  return `${family}-${pid}-${begun(pid)}`
}

/**
 * The peer program as one file: some sixty processes run it, and loading its thousand files takes four times as long.
 * It looks for the package.json of the library two directories above.
 */
function bundlePeer(directory: string): Effect.Effect<string> {
  return Effect.promise(async () => {
    const root = fileURLToPath(new URL("../..", import.meta.url))
    const file = join(directory, "dist/faults/peer.js")
    const bundle = await rolldown({ cwd: root, input: "test/faults/peer.ts", platform: "node" })
    await bundle.write({ file, codeSplitting: false })
    copyFileSync(join(root, "package.json"), join(directory, "package.json"))
    return file
  })
}

const guard = `
cat > /dev/null
for path in /run/netns/"$0"-*; do
  [ -e "$path" ] || continue
  name=\${path##*/}
  ip netns pids "$name" | xargs -r kill -9
  ip netns del "$name"
done
rm -rf "$1"
`

const make: Effect.Effect<Machine["Service"], never, Scope.Scope> = Effect.gen(function*() {
  for (const name of namespaces(`${family}-`)) {
    const [, pid, since] = /^codio-faults-(\d+)-(\d+)-/.exec(name) ?? []
    if (pid !== undefined && begun(Number(pid)) !== since) yield* removeNamespace(name)
  }
  const prefix = prefixOf(process.pid)
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), `${family}-`))),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
  )
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn("sh", ["-c", guard, prefix, directory], { detached: true, stdio: ["pipe", "ignore", "ignore"] })
    ),
    (child) =>
      Effect.promise(async () => {
        const ended = once(child, "close")
        child.stdin.end()
        await ended
      })
  )
  const peerProgram = yield* bundlePeer(directory)
  let last = 0
  return Machine.of({ prefix, directory, peerProgram, count: Effect.sync(() => ++last) })
})
