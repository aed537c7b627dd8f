/**
 * The one libp2p node: its modules as scoped resources, and the `Transport` port over it. `wire/` holds what this
 * library changes of TCP, Noise and Yamux.
 */
export * as Libp2pHost from "./Host.ts"
export * as Libp2pLogger from "./Logger.ts"
export * as Libp2pTransport from "./Transport.ts"
export * as TcpListener from "./TcpListener.ts"
