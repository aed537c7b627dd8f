/**
 * Peer-to-peer networking for Effect: one `Network` service, the services it is made of, and the vocabulary they share.
 *
 * Schemas, errors, events and services are exported by their own names. A module of functions is a namespace, as in
 * effect itself: `ContentKey.fromText("video")` gives a `ContentKey.ContentKey`.
 */
import "./layers/requireNode.ts"

export * from "./Network.ts"

export * as PublishedValue from "./layers/dht/libp2p/PublishedValue.ts"

export { agentVersion, protocolVersion, version } from "./schema/Agent.ts"
export * as Canonical from "./schema/Canonical.ts"
export * as CodioMessage from "./schema/CodioMessage.ts"
export * as ContentKey from "./schema/Content.ts"
export { Provider } from "./schema/Content.ts"
export * as Json from "./schema/Json.ts"
export * as LogFilter from "./schema/LogFilter.ts"
export * from "./schema/NetworkError.ts"
export * from "./schema/NetworkEvent.ts"
export * as NetworkOptions from "./schema/NetworkOptions.ts"
export * as OptionTable from "./schema/OptionTable.ts"
export * from "./schema/NodeStatus.ts"
export * from "./schema/Peer.ts"
export * from "./schema/ProvideStatus.ts"
export * as Subnet from "./schema/Subnet.ts"
export * as ValueNamespace from "./schema/ValueNamespace.ts"

export * from "./services/AddressGuard.ts"
export * from "./services/ConnectionManager.ts"
export * from "./services/Dht.ts"
export * from "./services/DialPolicy.ts"
export * from "./services/Discovery.ts"
export * from "./services/EvictionPolicy.ts"
export * from "./services/GuestPolicy.ts"
export * from "./services/Health.ts"
export { fast as fastHealthPolicy, HealthPolicy, type HealthPolicyOptions } from "./services/HealthPolicy.ts"
export * from "./services/Identity.ts"
export * from "./services/Interests.ts"
export * from "./services/KadDhtPolicy.ts"
export * from "./services/NetworkConfig.ts"
export * from "./services/NetworkEvents.ts"
export * as NetworkMetrics from "./services/NetworkMetrics.ts"
export * from "./services/NetworkMonitor.ts"
export * from "./services/PeerStore.ts"
export * from "./services/PeerTable.ts"
export * from "./services/Protocols.ts"
export * from "./services/ReconnectPolicy.ts"
export * from "./services/RelayPolicy.ts"
export * from "./services/Relays.ts"
export * from "./services/Shutdown.ts"
export * from "./services/Transport.ts"
export * from "./services/ValueNamespaces.ts"
