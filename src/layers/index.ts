/**
 * The implementations of the services, one namespace for each: `KadDht.layer`. `Network.layer` composes them; a program
 * that wants another composition takes them from here. Each room says in its `index.ts` what it is for.
 */
import "./requireNode.ts"

export * from "./machine/index.ts"
export * from "./libp2p/index.ts"
export * from "./codio/index.ts"
export * from "./peers/index.ts"
export * from "./dht/index.ts"
export * from "./discovery/index.ts"
export * from "./reach/index.ts"
