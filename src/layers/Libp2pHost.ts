/**
 * One libp2p node as a scoped resource, to which every libp2p module is attached as a scoped resource of its own.
 */
import type { Libp2p, Transport as Libp2pTransport } from "@libp2p/interface"
import type { Effect, Scope } from "effect"
import { Context } from "effect"
import type { Libp2pOptions } from "libp2p"
import type { HostError } from "../schema/NetworkError.ts"
import type { Multiaddr } from "../schema/Peer.ts"
import type { GateRule } from "../services/Transport.ts"

/** What libp2p gives to the factory of a module: the running node's parts. libp2p declares the type and does not export it. */
export type Components = Parameters<NonNullable<Libp2pOptions["transports"]>[number]>[0]

export class Libp2pHost extends Context.Service<Libp2pHost, {
  readonly node: Libp2p
  readonly components: Components
  /** Builds a module against the running node, starts it, registers its routing and discovery; reversed when the scope closes. */
  readonly attach: <A>(module: string, factory: (components: Components) => A) => Effect.Effect<A, HostError, Scope.Scope>
  /** Behind `Transport.gate`; one rule at a time. */
  readonly gate: (rule: GateRule) => Effect.Effect<void, never, Scope.Scope>
  /**
   * Attaches a transport module and listens on addresses it understands. Release only ends acceptance: closing a TCP listener destroys its
   * inbound connections, before any goodbye, so the socket itself closes with the node.
   */
  readonly listen: (
    module: string,
    factory: (components: Components) => Libp2pTransport,
    addresses: ReadonlyArray<Multiaddr>
  ) => Effect.Effect<void, HostError, Scope.Scope>
}>()("codio-network/layers/Libp2pHost") {}
