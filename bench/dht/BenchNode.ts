/** What the benchmark of the DHT asks of a node of any library, and of a process of such nodes. */

/** The library of a node. */
export type Kind = "ours" | "plain" | "rust" | "go"

/** What a process of nodes is started with. */
export interface NodesOptions {
  readonly kind: "ours" | "plain"
  /** How many nodes the process has. */
  readonly count: number
  /** Milliseconds by which received bytes are held back: the added round trip. */
  readonly delayMillis?: number
  /** Whether a node pings its peers, as one in use does. The nodes of a crowd do not: nothing dies here. */
  readonly isWatchful?: boolean
  /** The seconds after which provided keys are announced again. Defaults to the library's default. */
  readonly republishSeconds?: number
}

/** One node of such a process. */
export interface BenchNode {
  readonly peer: string
  readonly address: string
  readonly connect: (address: string) => Promise<void>
  /** Resolves when the announcement is over: each peer that should have a copy was sent the record. */
  readonly provide: (key: Uint8Array, options: ProvideOptions) => Promise<void>
  /**
   * Provides so many keys, and resolves when all are announced, with the copies that a key has on average. Plain
   * js-libp2p has no such thing.
   */
  readonly provideMany?: (count: number) => Promise<number>
  /** Calls back with each provider, and resolves when the lookup is over. */
  readonly find: (key: Uint8Array, found: (peer: string) => void) => Promise<void>
  /** Looks up the position of a key, to meet the nodes on the way. */
  readonly explore: (key: Uint8Array) => Promise<void>
  /** The peers in its routing table. */
  readonly known: () => Promise<ReadonlyArray<string>>
}

export interface ProvideOptions {
  readonly optimistic: boolean
}

/** What a process can be asked. `node` is the index of a node in the process; keys are hexadecimal. */
export type Ask =
  | { readonly op: "connect"; readonly node: number; readonly address: string }
  /** These nodes look up keys that nobody provides, one each, so that they hear of others. */
  | { readonly op: "explore"; readonly keys: ReadonlyArray<{ readonly node: number; readonly key: string }> }
  | { readonly op: "known" }
  | { readonly op: "provide"; readonly node: number; readonly key: string; readonly optimistic: boolean }
  /** Connects, and provides at once. What is measured begins with the connection. */
  | { readonly op: "join"; readonly address: string; readonly key: string }
  /** Provides so many keys, and then waits while all are announced once more. */
  | { readonly op: "republish"; readonly keys: number; readonly seconds: number }
  | { readonly op: "find"; readonly node: number; readonly key: string }
  | { readonly op: "cpu" }

/** The duration of an operation, and the messages that were sent for it. */
export interface Measured {
  readonly millis: number
  /** Milliseconds until the first provider. */
  readonly firstMillis?: number
  readonly found?: number
  readonly sent?: Sent
}

/** The cost of announcing all keys once more. */
export interface Republished {
  /** Copies of each key, on average. */
  readonly copies: number
  readonly sent: Sent
  /** Milliseconds of processor time, with everything else that the node does meanwhile. */
  readonly cpu: number
  /** Milliseconds until all were announced for the first time, and of processor time. */
  readonly first: { readonly millis: number; readonly cpu: number; readonly sent: Sent }
}

/** What a process sent on streams of Kademlia that it opened. */
export interface Sent {
  /** Messages of the protocol. */
  readonly messages: number
  /** How many of them announce a provider. */
  readonly announcements: number
  /** Writes to a stream, each of one message or of several that leave together. */
  readonly writes: number
}

export interface Answers {
  readonly connect: null
  readonly explore: null
  /** Of each node. */
  readonly known: ReadonlyArray<ReadonlyArray<string>>
  readonly provide: Measured
  readonly join: Measured
  readonly republish: Republished
  readonly find: Measured
  /** Milliseconds of processor time so far. */
  readonly cpu: number
}

export type FromNodes =
  | { readonly ready: ReadonlyArray<{ readonly peer: string; readonly address: string }> }
  | { readonly id: number; readonly value: Answers[keyof Answers] }
  | { readonly id: number; readonly problem: string }

/** The protocol of all networks here. */
export const kadProtocol = "/codio/kad/1.0.0"

/** How many peers a node may have: more than there are, so that the limit shapes no network. */
export const peersMax = 250
