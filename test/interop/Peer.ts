/**
 * The peers of the suite, all driven by the same commands: nodes of this library in this process, nodes of Rust and Go
 * as child processes over JSON lines.
 */
import { type Duration, Effect, Schedule, type Scope } from "effect"
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"

export type Kind = "ts" | "rust" | "go"
export const kinds: ReadonlyArray<Kind> = ["ts", "rust", "go"]

export interface PeerOptions {
  /** The Kademlia protocol; without it a peer of Rust or Go speaks none. */
  readonly kad?: string
  readonly mdns?: boolean
  /** Serves as a relay. */
  readonly relay?: boolean
  /** Whether a peer of Rust tells its listen addresses as external ones. Defaults to true. */
  readonly external?: boolean
  readonly listen?: string
  /** Whether a peer of Rust pings every 15 s rather than twice a second. */
  readonly quiet?: boolean
}

export interface Command {
  readonly addr?: string
  readonly peer?: string
  /** Hexadecimal, as `value` is. */
  readonly key?: string
  readonly path?: string
  readonly value?: string
  readonly sequence?: number
  readonly quorum?: number
  readonly protocol?: string
  readonly bytes?: number
  readonly mode?: "echo" | "slow" | "send" | "reset" | "await"
  readonly count?: number
}

/** How long an operation took, as the peer itself measured it. */
export interface Took {
  readonly millis: number
}

/** The answers to the commands. */
export interface Answers {
  readonly addresses: { readonly addresses: ReadonlyArray<string> }
  readonly connect: { readonly peer: string }
  readonly disconnect: object
  readonly peers: {
    readonly peers: ReadonlyArray<{ readonly peer: string; readonly addr: string; readonly outbound: boolean }>
  }
  readonly identify: {
    readonly agent: string
    readonly version: string
    readonly protocols: ReadonlyArray<string>
  }
  readonly ping: { readonly millis: number }
  readonly "kad-peers": { readonly count: number }
  readonly provide: Took
  readonly find: Took & {
    /** Until the first provider. */
    readonly firstMillis?: number | null
    readonly providers: ReadonlyArray<{ readonly peer: string; readonly addresses: ReadonlyArray<string> }>
  }
  readonly put: object
  readonly get: { readonly publisher: string; readonly sequence: number; readonly value: string }
  readonly reserve: object
  readonly stream: {
    readonly bytes: number
    readonly intact: boolean
    readonly millis: number
    readonly reset?: string | null
  }
  /** How many streams of a protocol the other peer has opened here; not with Rust. */
  readonly streams: { readonly count: number }
  readonly crowd: { readonly connected: number; readonly millis: number; readonly refused?: ReadonlyArray<string> }
}

/** An event that a peer reports. */
export interface Happened {
  readonly event: "connected" | "disconnected" | "mdns" | "received" | "dcutr"
  readonly peer: string
  readonly addr?: string
  readonly protocol?: string
  readonly bytes?: number
  readonly intact?: boolean
  readonly error?: string | null
  readonly ok?: boolean
}

export interface Peer {
  readonly kind: Kind
  readonly id: string
  readonly addresses: ReadonlyArray<string>
  readonly run: <Op extends keyof Answers>(op: Op, command?: Command) => Effect.Effect<Answers[Op], Error>
  /** The events so far. */
  readonly happened: ReadonlyArray<Happened>
}

/** Waits for an event that fits, at or after an index in `happened`. */
export const saw = (
  peer: Peer,
  what: string,
  test: (happened: Happened) => boolean,
  since = 0,
  duration?: Duration.Input
): Effect.Effect<Happened, Error> =>
  eventually(
    `${peer.kind} sees ${what}`,
    Effect.sync(() => peer.happened.slice(since).find(test)),
    (found) => found !== undefined,
    duration
  ) as Effect.Effect<Happened, Error>

/** Repeats an effect until its value holds, for half a minute by default; failures count as not yet. */
export const eventually = <A>(
  what: string,
  read: Effect.Effect<A, Error>,
  holds: (value: A) => boolean,
  duration: Duration.Input = "30 seconds"
): Effect.Effect<A, Error> => {
  let last: unknown
  const once = read.pipe(
    Effect.flatMap((value) => {
      last = value
      return holds(value) ? Effect.succeed(value) : Effect.fail(new Error("not yet"))
    }),
    Effect.tapError((error) => Effect.sync(() => last ??= error.message))
  )
  return Effect.retry(once, Schedule.spaced("50 millis")).pipe(
    Effect.timeoutOrElse({
      duration,
      orElse: () => Effect.fail(new Error(`never: ${what}; last: ${JSON.stringify(last)}`))
    })
  )
}

/** A peer of another implementation, for as long as the scope lives. */
export const makeForeign = (
  kind: Exclude<Kind, "ts">,
  program: string,
  options: PeerOptions
): Effect.Effect<Peer, Error, Scope.Scope> =>
  Effect.gen(function*() {
    const happened: Array<Happened> = []
    const waiting = new Map<number, (answer: Reply) => void>()
    let last = 0
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(program, [JSON.stringify({ external: true, listen: "/ip4/127.0.0.1/tcp/0", ...options })], {
          stdio: ["pipe", "pipe", "inherit"]
        })
      ),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    )
    const ready = yield* Effect.callback<Ready, Error>((resume) => {
      child.on("error", (cause) => resume(Effect.fail(cause)))
      child.on("exit", (code) => {
        resume(Effect.fail(new Error(`the ${kind} peer ended with ${code}`)))
        for (const answer of waiting.values()) answer({ id: 0, error: `the ${kind} peer ended with ${code}` })
      })
      createInterface({ input: child.stdout }).on("line", (line) => {
        const said = JSON.parse(line) as Ready | Reply | Happened
        if ("id" in said) {
          waiting.get(said.id)?.(said)
          waiting.delete(said.id)
        } else if (said.event === "ready") resume(Effect.succeed(said))
        else happened.push(said)
      })
    }).pipe(Effect.timeout("1 minute"))
    const peer: Peer = {
      kind,
      id: ready.peer,
      addresses: ready.addresses,
      happened,
      run: (op, command = {}) =>
        Effect.callback<never, Error>((resume) => {
          const id = ++last
          waiting.set(id, (reply) =>
            resume(
              reply.error === undefined
                ? Effect.succeed(reply as never)
                : Effect.fail(new Error(`${kind}: ${op}: ${reply.error}`))
            ))
          child.stdin.write(`${JSON.stringify({ id, op, ...command })}\n`)
          return Effect.sync(() => waiting.delete(id))
        }).pipe(
          Effect.timeoutOrElse({
            duration: "90 seconds",
            orElse: () => Effect.fail(new Error(`${kind}: ${op}: no answer within 90 s`))
          })
        )
    }
    return peer
  }).pipe(Effect.mapError((error) => error instanceof Error ? error : new Error(String(error))))

// internal ------------------------------------------------------------------------------------------------------------

interface Ready {
  readonly event: "ready"
  readonly peer: string
  readonly addresses: ReadonlyArray<string>
}

interface Reply {
  readonly id: number
  readonly error?: string
}
