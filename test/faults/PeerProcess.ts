/**
 * The peer program in a process and a namespace of its own, as a scenario sees it.
 */
import { Clock, Deferred, Effect, type Scope } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { mkdirSync, readdirSync, rmSync } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"
import type { Answer, Command, Failure, Happened, PeerOptions, Ready } from "./commands.ts"
import type { Host } from "./Lab.ts"
import { Machine } from "./Machine.ts"

export interface PeerProcess {
  /** The peer id of its first node. */
  readonly id: string
  /** An address of its first node, ending in `/p2p/<id>`. */
  readonly address: string
  readonly pid: number
  /** The answer; a defect when the command fails. */
  readonly ask: (command: Command) => Effect.Effect<any>
  /** How the command fails; a defect when it does not. */
  readonly refusal: (command: Command) => Effect.Effect<Failure>
  /** The events so far, the oldest first. */
  readonly happened: ReadonlyArray<Happened>
  /**
   * The first event with this tag that fits, past or to come, that happened at `since` or later; a defect when it has
   * not come within the limit, counted from now.
   */
  readonly event: (
    tag: string,
    options: { readonly peer?: string; readonly since?: number; readonly seconds: number }
  ) => Effect.Effect<Happened>
  /** The step of the backoff for that peer before a moment, in seconds; 0 without an event of it. */
  readonly backoff: (peer: string, before: number) => number
  /** Kills it, without a goodbye. */
  readonly kill: Effect.Effect<void>
  /** Freezes it while the scope lives; its sockets stay open. */
  readonly frozen: Effect.Effect<void, never, Scope.Scope>
}

/** The port on which every node listens. */
export const port = 4001

/** Starts it; it is killed with the scope. On the same host its id is always the same, and its other data is gone. */
export const start = (
  host: Host,
  options: PeerOptions = {}
): Effect.Effect<PeerProcess, never, Machine | Scope.Scope> =>
  Effect.gen(function*() {
    const { directory, peerProgram } = yield* Machine
    const dataDirectory = join(directory, host.namespace)
    mkdirSync(dataDirectory, { recursive: true })
    for (const file of readdirSync(dataDirectory)) {
      if (file !== "identity.key") rmSync(join(dataDirectory, file), { recursive: true })
    }
    const single = (options.nodes ?? 1) === 1
    const config = { ...(single ? { dataDirectory, listenPort: port } : {}), ...options.config }
    const program = yield* Effect.acquireRelease(
      Effect.sync(() => launch(host, peerProgram, { ...options, config })),
      ({ kill }) => kill
    )
    const ready = yield* program.ready
    const id = ready[0] ?? ""
    return { ...program, id, address: `/ip4/${host.address}/tcp/${port}/p2p/${id}` }
  })

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** No answer takes so long, however busy the machine. */
const answerSeconds = 60

/** The end of a peer's error output. */
const errorCharacters = 4_000

function launch(host: Host, peerProgram: string, options: PeerOptions) {
  const child = spawn(
    "ip",
    ["netns", "exec", host.namespace, process.execPath, peerProgram, JSON.stringify(options)],
    { stdio: ["pipe", "pipe", "pipe"], env: environment }
  )
  const happened: Array<Happened> = []
  const looking = new Set<() => void>()
  const answers = new Map<number, Deferred.Deferred<Answer>>()
  const ready = Deferred.makeUnsafe<ReadonlyArray<string>>()
  const ended = Deferred.makeUnsafe<void>()
  let requests = 0
  let stderr = ""
  let isKilled = false
  const problem = (what: string) => new Error(stderr === "" ? what : `${what}; it said: ${stderr.trim()}`)

  const inTime = <A>(what: string, wait: Effect.Effect<A>) =>
    Effect.timeoutOrElse(wait, {
      duration: `${answerSeconds} seconds`,
      orElse: () => Effect.die(problem(`${what} within ${answerSeconds} s`))
    })

  child.stdin.on("error", () => {})
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr = (stderr + text).slice(-errorCharacters)
  })
  createInterface(child.stdout).on("line", (text) => {
    const line = JSON.parse(text) as Ready | Answer | Happened
    if ("ready" in line) Deferred.doneUnsafe(ready, Effect.succeed(line.ready))
    else if ("id" in line) {
      const asked = answers.get(line.id)
      if (asked !== undefined) Deferred.doneUnsafe(asked, Effect.succeed(line))
      answers.delete(line.id)
    } else {
      happened.push(line)
      for (const look of looking) look()
    }
  })
  child.on("close", (code, signal) => {
    const end = Effect.die(problem(`the peer ended (${signal ?? code})`))
    Deferred.doneUnsafe(ended, Effect.void)
    Deferred.doneUnsafe(ready, end)
    for (const asked of answers.values()) Deferred.doneUnsafe(asked, end)
  })

  const request = (command: Command): Effect.Effect<Answer> =>
    Effect.suspend(() => {
      const id = ++requests
      const asked = Deferred.makeUnsafe<Answer>()
      answers.set(id, asked)
      child.stdin.write(`${JSON.stringify({ ...command, id })}\n`)
      return inTime(`no answer to ${command.do}`, Deferred.await(asked))
    })

  const event: PeerProcess["event"] = (tag, { peer, seconds, since = 0 }) =>
    Effect.callback<Happened>((resume) => {
      const look = () => {
        const found = happened.find(({ at, event }) =>
          event._tag === tag && at >= since && (peer === undefined || event["peer"] === peer || event["relay"] === peer)
        )
        if (found !== undefined) resume(Effect.succeed(found))
      }
      looking.add(look)
      look()
      return Effect.sync(() => looking.delete(look))
    }).pipe(Effect.timeoutOrElse({
      duration: `${seconds} seconds`,
      orElse: () =>
        Effect.flatMap(Clock.currentTimeMillis, (now) =>
          Effect.die(problem(`no ${tag} within ${seconds} s; the last events: ${recent(happened, now)}`)))
    }))

  const kill = Effect.suspend(() => {
    isKilled = true
    child.kill("SIGKILL")
    return Deferred.await(ended)
  })

  return {
    pid: child.pid ?? 0,
    ready: inTime("the peer did not start", Deferred.await(ready)),
    happened,
    event,
    backoff: (peer: string, before: number) => {
      const last = happened.findLast(({ at, event }) =>
        event._tag === "ReconnectScheduled" && event["peer"] === peer && at <= before
      )
      return Number(last?.event["delay"] ?? 0) / 1000
    },
    kill,
    ask: (command: Command): Effect.Effect<any> =>
      Effect.flatMap(request(command), (answer) =>
        "ok" in answer
          ? Effect.succeed(answer.ok)
          : Effect.die(problem(`${command.do} failed: ${answer.error.reason}: ${answer.error.message}`))),
    refusal: (command: Command): Effect.Effect<Failure> =>
      Effect.flatMap(
        request(command),
        (answer) => "error" in answer ? Effect.succeed(answer.error) : Effect.die(problem(`${command.do} did not fail`))
      ),
    frozen: Effect.asVoid(Effect.acquireRelease(
      Effect.sync(() => signal(child, "SIGSTOP")),
      () => Effect.sync(() => isKilled || signal(child, "SIGCONT"))
    ))
  }
}

/** The variables of this process must not decide a scenario. */
const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("CODIO_")))

function signal(child: ChildProcess, name: "SIGSTOP" | "SIGCONT"): void {
  if (!child.kill(name)) throw new Error("the peer has ended")
}

function recent(happened: ReadonlyArray<Happened>, now: number): string {
  return happened.slice(-12).map(({ at, event: { _tag, ...fields } }) =>
    `${_tag} ${((at - now) / 1000).toFixed(1)} s ${JSON.stringify(fields)}`
  ).join("; ")
}
