/**
 * What the rows share: the programs of the peers, and the matrix.
 */
import { Effect, type Scope } from "effect"
import type { Matrix } from "./Matrix.ts"
import { eventually, type Kind, makeForeign, type Peer, type PeerOptions } from "./Peer.ts"
import * as TsPeer from "./TsPeer.ts"

export interface Bench extends Matrix {
  /** A peer, for as long as the scope lives. */
  readonly make: (kind: Kind, options?: PeerOptions) => Effect.Effect<Peer, Error, Scope.Scope>
}

export const make = (matrix: Matrix, programs: { readonly rust: string; readonly go: string }): Bench => ({
  ...matrix,
  make: (kind, options = {}) => kind === "ts" ? TsPeer.make(options) : makeForeign(kind, programs[kind], options)
})

/** Connects, and waits until both sides say so. */
export const connect = Effect.fnUntraced(function*(from: Peer, to: Peer) {
  yield* from.run("connect", { addr: to.addresses[0]! })
  yield* isConnected(to, from)
  yield* isConnected(from, to)
})

/** Waits until a peer has a connection to another, direct or through a relay. */
export const isConnected = (peer: Peer, other: Peer) =>
  eventually(
    `${peer.kind} is connected to ${other.kind}`,
    Effect.map(peer.run("peers"), ({ peers }) => peers.filter((one) => one.peer === other.id)),
    (found) => found.length > 0
  )

/** Waits until a peer has so many peers in its routing table. */
export const knows = (peer: Peer, count = 1) =>
  eventually(
    `${peer.kind} has ${count} in its routing table`,
    peer.run("kad-peers"),
    (found) => found.count >= count
  )

export const hold = (condition: boolean, what: string): Effect.Effect<void, Error> =>
  condition ? Effect.void : Effect.fail(new Error(what))
