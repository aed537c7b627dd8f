/**
 * Kademlia: ask, provide and serve. Only `libp2p/` knows libp2p, so another carrier can replace it.
 */
export * as KadDht from "./libp2p/KadDht.ts"
export * as NoDht from "./NoDht.ts"
export * as PublishedValue from "./libp2p/PublishedValue.ts"
