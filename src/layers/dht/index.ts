/**
 * Kademlia: ask, provide and serve. Only `libp2p/` knows libp2p, so another carrier can take its place.
 */
export * as KadDht from "./KadDht.ts"
export * as PublishedValue from "./libp2p/PublishedValue.ts"
