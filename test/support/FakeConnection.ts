/**
 * Connections that exist only as far as the peer table looks at them.
 */
import { Effect } from "effect"
import { base58btc } from "multiformats/bases/base58"
import * as Digest from "multiformats/hashes/digest"
import { sha256 } from "multiformats/hashes/sha2"
import type { Multiaddr, PeerId } from "../../src/schema/Peer.ts"
import type { Connection, Farewell } from "../../src/services/Transport.ts"

export interface FakeConnection extends Connection {
  readonly state: { open: boolean; activeStreams: number; closes: number }
}

let count = 0

/** A peer id that the schema accepts, the same for the same name. */
export const peerId = (name: string): PeerId => {
  const digest = sha256.digest(new TextEncoder().encode(name))
  if (digest instanceof Promise) throw new Error("sha2-256 is synchronous on Node")
  return base58btc.baseEncode(Digest.decode(digest.bytes).bytes) as PeerId
}

export const make = (
  peer: PeerId,
  options: { readonly inbound?: boolean; readonly address?: string; readonly farewell?: Farewell } = {}
): FakeConnection => {
  const state = { open: true, activeStreams: 0, closes: 0 }
  return {
    state,
    id: `fake-${count++}`,
    peer,
    direction: options.inbound === true ? "inbound" : "outbound",
    remoteAddress: (options.address ?? "/ip4/127.0.0.1/tcp/4001") as Multiaddr,
    path: Effect.succeed({ _tag: "Direct" }),
    isOpen: Effect.sync(() => state.open),
    activeStreams: Effect.sync(() => state.activeStreams),
    // Other software, to which no goodbye is said.
    remote: Effect.succeedSome({ protocolVersion: "", agentVersion: "fake", protocols: [], listenAddresses: [] }),
    farewell: Effect.sync(() => state.open ? undefined : options.farewell),
    open: () => Effect.die("a fake connection opens no streams"),
    flushed: Effect.void,
    close: Effect.sync(() => {
      state.open = false
      state.closes++
    })
  }
}
