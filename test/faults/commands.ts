/**
 * The protocol between the suite and its peer program: JSON lines, commands on standard input, answers and events on
 * standard output.
 */
import type { NetworkConfigInput } from "../../src/services/NetworkConfig.ts"

/** The one argument of the program, as JSON. */
export interface PeerOptions {
  /** How many nodes run in the process; 0 for one that speaks plain TCP only. Defaults to 1. */
  readonly nodes?: number
  readonly config?: NetworkConfigInput
  /**
   * `fast` is the library's own preset; `patient` closes no connection within the length of a scenario. Defaults to the
   * library's default.
   */
  readonly health?: "fast" | "patient"
  /** Whether the nodes are relays. */
  readonly relay?: boolean
}

/** The first line: every node, in order. */
export interface Ready {
  readonly ready: ReadonlyArray<string>
}

/** `node` is the index of the node in the process, 0 where absent. */
export type Command =
  & { readonly node?: number }
  & (
    | { readonly do: "connect" | "keep"; readonly target: string }
    | { readonly do: "disconnect" | "ping"; readonly peer: string }
    | { readonly do: "peers" | "addresses" | "memory" }
    /** All nodes of the process connect to the target, so many at a time: the outcome of each. */
    | { readonly do: "crowd"; readonly target: string; readonly concurrency: number }
    /** Sends so many bytes to the peer, which sends them back: how many came. */
    | { readonly do: "echo"; readonly peer: string; readonly bytes: number }
    /** Opens so many streams to the peer and holds them: how many it answered. */
    | { readonly do: "flood"; readonly peer: string; readonly streams: number }
    /** A TCP server that accepts and never speaks: its port. */
    | { readonly do: "listenSilently" }
    /** So many TCP connections that never speak: how many were made. */
    | { readonly do: "connectSilently"; readonly host: string; readonly port: number; readonly count: number }
    /** Silent connections, of both kinds, that are open now. */
    | { readonly do: "silent" }
    /** How many milliseconds the process has waited for a processor so far. */
    | { readonly do: "lost" }
  )

export type Request = Command & { readonly id: number }

export interface Failure {
  /** Such as `DialError.Refused`. */
  readonly reason: string
  readonly message: string
}

export type Answer =
  | { readonly id: number; readonly ok: unknown }
  | { readonly id: number; readonly error: Failure }

/**
 * An event of a node, and its time: milliseconds since the epoch, which all processes of a machine share. Durations are
 * milliseconds.
 */
export interface Happened {
  readonly node: number
  readonly at: number
  /** How many milliseconds the process had waited for a processor by then. */
  readonly lost: number
  readonly event: { readonly _tag: string; readonly [field: string]: unknown }
}
