/**
 * Keys of any 1 to 80 bytes for kad-dht. [libp2p]
 *
 * Rust and Go provide under whatever bytes they like. kad-dht sends such a key when it is asked to, but its server answers only for keys that
 * decode as a CID, so that nodes of Codio on the way of a lookup would break it, and none would store the record.
 *
 * Two of kad-dht's message handlers are replaced, in the instance, and its store of providers is told other names: it keeps records under
 * multihashes and reads them back as such. A sha2-256 multihash stays as it is, and any other key becomes the identity multihash of its
 * bytes, an identity multihash included, so that no two keys share a name.
 *
 * The members that this leans on are private in their types. They are asserted when it is attached, and `package.json` holds kad-dht to one
 * minor version.
 */
import type { PeerId, PeerInfo } from "@libp2p/interface"
import { peerIdFromMultihash } from "@libp2p/peer-id"
import { multiaddr, type Multiaddr } from "@multiformats/multiaddr"
import type { CID } from "multiformats/cid"
import * as Digest from "multiformats/hashes/digest"
import { type ContentKey, keyBytesMax, toBytes } from "../schema/Content.ts"
import type { Components } from "./Libp2pHost.ts"

/** The parts of kad-dht's class that are used here, and that its interface leaves out. */
export interface KadInternals {
  readonly providers: {
    addProvider: (key: KadKey, provider: PeerId, ...rest: ReadonlyArray<unknown>) => Promise<void>
    removeProvider: (key: KadKey, provider: PeerId, ...rest: ReadonlyArray<unknown>) => Promise<void>
    getProviders: (key: KadKey, ...rest: ReadonlyArray<unknown>) => Promise<ReadonlyArray<PeerId>>
  }
  readonly peerRouting: {
    readonly getClosestPeersOffline: (key: Uint8Array) => Promise<ReadonlyArray<PeerInfo>>
  }
  readonly reprovider: { queueReprovide: (key: CID) => Promise<void> }
  readonly rpc: { readonly handlers: Record<string, Handler> }
}

/** What kad-dht reads of a CID. */
export interface KadKey {
  readonly multihash: { readonly bytes: Uint8Array }
}

/** A content key in the form in which kad-dht takes it. Only the multihash is ever read, and only its bytes. */
export const toKadKey = (key: ContentKey): CID => keyOf(toBytes(key)) as CID

/**
 * Lets a kad-dht store and serve providers under keys of any 1 to 80 bytes. Throws when this kad-dht is not made as expected.
 *
 * A provider that sends no address is stored with those that identify told of it, or, without any, with the address that this node dialled
 * it at. The address of an inbound connection is none that anybody could dial.
 */
export const takeAnyKey = (kad: KadInternals, components: Components): void => {
  assertMembers(kad)
  const { connectionManager, peerStore } = components
  const { peerRouting, providers, reprovider, rpc } = kad

  const add = providers.addProvider.bind(providers)
  const remove = providers.removeProvider.bind(providers)
  const get = providers.getProviders.bind(providers)
  providers.addProvider = (key, ...rest) => add(storedAs(key), ...rest)
  providers.removeProvider = (key, ...rest) => remove(storedAs(key), ...rest)
  providers.getProviders = (key, ...rest) => get(storedAs(key), ...rest)

  // It announces an own record that is past its time, under the name that the record is stored by. ProvidedKeys announces.
  reprovider.queueReprovide = () => Promise.resolve()

  const addressesOf = async (peer: PeerId): Promise<ReadonlyArray<Multiaddr>> => {
    const stored = await peerStore.get(peer).catch(() => undefined)
    return stored?.addresses.map((address) => address.multiaddr) ?? []
  }

  rpc.handlers["ADD_PROVIDER"] = {
    handle: async (from, { key, providers: named }) => {
      const content = checked(key)
      for (const provider of named) {
        const id = peerIdFromMultihash(Digest.decode(provider.id))
        // Nobody speaks for others.
        if (!id.equals(from)) continue
        const told = provider.multiaddrs.flatMap(readAddress)
        if (told.length === 0 && (await addressesOf(from)).length === 0) {
          const dialled = connectionManager.getConnections(from).filter(({ direction }) => direction === "outbound")
          told.push(...dialled.map(({ remoteAddr }) => remoteAddr))
        }
        if (told.length > 0) await peerStore.merge(from, { multiaddrs: told })
        await providers.addProvider(keyOf(content), from)
      }
      return undefined
    }
  }

  rpc.handlers["GET_PROVIDERS"] = {
    handle: async (_, { clusterLevel, key, type }) => {
      const content = checked(key)
      const ids = await providers.getProviders(keyOf(content))
      const known = await Promise.all(ids.map(async (id) => ({ id, multiaddrs: await addressesOf(id) })))
      const closer = await peerRouting.getClosestPeersOffline(content)
      return { type, key: content, clusterLevel, closer: toMessage(closer), providers: toMessage(known) }
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** A message of Kademlia as kad-dht decodes it. */
export interface KadMessage {
  readonly type: unknown
  readonly key?: Uint8Array
  readonly clusterLevel?: number | undefined
  readonly record?: Uint8Array | undefined
  readonly closer: ReadonlyArray<KadMessagePeer>
  readonly providers: ReadonlyArray<KadMessagePeer>
}

interface KadMessagePeer {
  readonly id: Uint8Array
  readonly multiaddrs: ReadonlyArray<Uint8Array>
}

interface Handler {
  readonly handle: (from: PeerId, message: KadMessage) => Promise<KadMessage | undefined>
}

function assertMembers(kad: KadInternals): void {
  const functions = {
    "providers.addProvider": kad.providers?.addProvider,
    "providers.removeProvider": kad.providers?.removeProvider,
    "providers.getProviders": kad.providers?.getProviders,
    "peerRouting.getClosestPeersOffline": kad.peerRouting?.getClosestPeersOffline,
    "reprovider.queueReprovide": kad.reprovider?.queueReprovide,
    "rpc.handlers.ADD_PROVIDER.handle": kad.rpc?.handlers?.["ADD_PROVIDER"]?.handle,
    "rpc.handlers.GET_PROVIDERS.handle": kad.rpc?.handlers?.["GET_PROVIDERS"]?.handle
  }
  for (const [member, value] of Object.entries(functions)) {
    if (typeof value !== "function") throw new Error(`this version of kad-dht has no ${member}; use ~16.4.5`)
  }
}

function keyOf(bytes: Uint8Array): KadKey {
  return { multihash: { bytes } }
}

function storedAs(key: KadKey): KadKey {
  const { bytes } = key.multihash
  return isSha256(bytes) ? key : { multihash: Digest.create(0x00, bytes) }
}

function isSha256(bytes: Uint8Array): boolean {
  return bytes.length === 34 && bytes[0] === 0x12 && bytes[1] === 0x20
}

function checked(key: Uint8Array | undefined): Uint8Array {
  if (key !== undefined && key.length >= 1 && key.length <= keyBytesMax) return key
  throw new Error(`a key has 1 to ${keyBytesMax} bytes, this one has ${key?.length ?? 0}`)
}

/** One address that this node cannot read is no reason to lose the others. */
function readAddress(bytes: Uint8Array): ReadonlyArray<Multiaddr> {
  try {
    return [multiaddr(bytes)]
  } catch {
    return []
  }
}

/** A peer without an address helps nobody who does not know it already. */
function toMessage(peers: ReadonlyArray<{ readonly id: PeerId; readonly multiaddrs: ReadonlyArray<Multiaddr> }>) {
  return peers.filter(({ multiaddrs }) => multiaddrs.length > 0).map(({ id, multiaddrs }) => ({
    id: id.toMultihash().bytes,
    multiaddrs: multiaddrs.map(({ bytes }) => bytes)
  }))
}
