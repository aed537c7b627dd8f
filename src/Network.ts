/**
 * The roof: everything a program needs of its node, behind one service.
 */
import type { Duration, Effect, Scope, Stream } from "effect"
import { Context } from "effect"
import type { ContentKey, Provider } from "./schema/Content.ts"
import type {
  ConnectError,
  DhtError,
  DialError,
  PeerNotConnected,
  PingError,
  ProtocolError,
  StreamError
} from "./schema/NetworkError.ts"
import type { NetworkEvent } from "./schema/NetworkEvent.ts"
import type { DialTarget, Multiaddr, PeerAddresses, PeerId, PeerInfo } from "./schema/Peer.ts"
import type { Option } from "effect"
import type { ByteStream } from "./services/Transport.ts"

/** A target as a program writes it: plain text is decoded once, here. */
export type TargetInput = DialTarget | string

export class Network extends Context.Service<Network, {
  readonly localPeer: PeerId
  readonly addresses: Effect.Effect<ReadonlyArray<Multiaddr>>
  readonly connect: (target: TargetInput) => Effect.Effect<PeerInfo, ConnectError>
  readonly keep: (target: TargetInput) => Effect.Effect<void, DialError, Scope.Scope>
  readonly disconnect: (peer: PeerId | string) => Effect.Effect<void>
  readonly block: (peer: PeerId | string) => Effect.Effect<void, never, Scope.Scope>
  readonly peers: Effect.Effect<ReadonlyArray<PeerInfo>>
  readonly peerCount: Effect.Effect<number>
  readonly peer: (id: PeerId | string) => Effect.Effect<Option.Option<PeerInfo>>
  readonly ping: (peer: PeerId | string) => Effect.Effect<Duration.Duration, PingError>
  readonly startProviding: (key: ContentKey) => Effect.Effect<void, DhtError>
  readonly stopProviding: (key: ContentKey) => Effect.Effect<void, DhtError>
  readonly provide: (key: ContentKey) => Effect.Effect<void, DhtError, Scope.Scope>
  readonly findProviders: (key: ContentKey) => Stream.Stream<Provider, DhtError>
  readonly findPeer: (peer: PeerId | string) => Effect.Effect<PeerAddresses, DhtError>
  readonly handle: <E, R>(
    protocol: string,
    handler: (stream: ByteStream) => Effect.Effect<void, E, R>
  ) => Effect.Effect<void, ProtocolError, Scope.Scope | Exclude<R, Scope.Scope>>
  readonly open: (
    peer: PeerId | string,
    protocol: string
  ) => Effect.Effect<ByteStream, ConnectError | PeerNotConnected | StreamError, Scope.Scope>
  readonly events: Stream.Stream<NetworkEvent>
}>()("codio-network/Network") {}
