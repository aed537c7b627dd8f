/**
 * Provider records of others, as a server of the DHT keeps them: in memory, in the bytes in which they are answered.
 *
 * What a record costs decides how many a node can keep. The id and the addresses of a provider are there once, whatever it provides, as
 * texts of one byte a character, which have a third of the overhead of small buffers; a record is its place in two lists, that of its key
 * and that of its provider. A provider that comes with other addresses has them in all its records at once.
 *
 * Anybody may send records, under as many ids as they like, so everything is bounded. Who has more than others gives way: when the store is
 * full, a newcomer takes the place of a record from the subnet, or else the sender, that has the most of all as far as is known, and is
 * refused when its own has more. A sender loses what it announced longest ago. Whoever commands many subnets can still push others out,
 * until they announce again.
 *
 * Time is given from outside, in milliseconds since the epoch, and counts in whole seconds.
 */
import { keyBytesMax } from "../schema/Content.ts"
import { keyOf } from "./KadNode.ts"

/** Why a record was not stored. */
export type ProviderRefusal =
  /** The key has no byte, or more than a key may have. */
  | "key"
  /** A time to live of zero, less, or none at all. */
  | "ttl"
  /** The encoded provider is longer than {@link ProviderRecordsOptions.bodyBytesMax}. */
  | "size"
  /** The subnet has its share of all records, or of the providers of this key. */
  | "subnet"
  /** The store is full, and nobody in it that was looked at has as many as the sender or its subnet. */
  | "full"

export interface ProviderRecordsOptions {
  /**
   * How many records there may be. Defaults to 200,000, which take 35 MB with keys of 34 bytes and few providers, 90 MB when every provider
   * is another.
   */
  readonly recordsMax?: number | undefined
  /**
   * How many of them one sender may have; beyond, it replaces what it announced longest ago. Defaults to half, since the one origin of a
   * small network has many keys, and its only server all of them.
   */
  readonly recordsPerSenderMax?: number | undefined
  /** How many of them may come from one subnet, where the subnet is given. Defaults to half. */
  readonly recordsPerSubnetMax?: number | undefined
  /**
   * How many providers a key may have. The one that expires first makes room. Defaults to 256: an answer of 16 KiB holds 150, and answers take
   * turns. Rust keeps 20 of a key.
   */
  readonly providersPerKeyMax?: number | undefined
  /** How many of them may come from one subnet, where the subnet is given. Defaults to a quarter. */
  readonly providersPerSubnetMax?: number | undefined
  /** How many bytes the id and the addresses of a provider may have. Defaults to 1,024, some twenty addresses. */
  readonly bodyBytesMax?: number | undefined
}

/** How long a record is served, in seconds: 24 hours, as Rust, Go and JavaScript serve it at least. None is kept longer. */
export const recordSecondsMax = 24 * 60 * 60

export interface ProviderRecords {
  /**
   * Stores that a provider has a key, or that it still has. The bytes are copied. `body` is the provider as it is answered, a Peer message;
   * without one the record waits for `bodyOf` of {@link ProviderRecords.get}. `ttlSeconds` shortens the 24 hours. `subnet` is a name to
   * count by, for a sender that is to be counted.
   */
  readonly put: (
    key: Uint8Array,
    provider: Uint8Array,
    body: Uint8Array | undefined,
    now: number,
    options?: { readonly ttlSeconds?: number | undefined; readonly subnet?: string | undefined }
  ) => "stored" | ProviderRefusal
  /**
   * The providers of a key, at most `bytesMax` bytes of them. Those that did not fit come first the next time. `bodyOf` tells what is known
   * by now of a provider that was stored without a body.
   */
  readonly get: (
    key: Uint8Array,
    now: number,
    bytesMax: number,
    bodyOf?: (provider: Uint8Array) => Uint8Array | undefined
  ) => Array<Uint8Array>
  /** Forgets that a provider has a key. */
  readonly remove: (key: Uint8Array, provider: Uint8Array) => void
  /** Looks at some more keys, and forgets what has expired; how many records that were. Each put looks at one. */
  readonly sweep: (now: number, keys: number) => number
  /** How many records there are, those included that have expired and are not swept yet. */
  readonly size: () => number
  /** How many keys have a record. */
  readonly keys: () => number
}

export const make = (options: ProviderRecordsOptions = {}): ProviderRecords => {
  const { bodyBytesMax = 1024, providersPerKeyMax = 256, recordsMax = 200_000 } = options
  const { recordsPerSenderMax = Math.ceil(recordsMax / 2), recordsPerSubnetMax = Math.ceil(recordsMax / 2) } = options
  const { providersPerSubnetMax = Math.ceil(providersPerKeyMax / 4) } = options
  // The first record of each key.
  const lists = new Map<string, ProviderRecord>()
  const providers = new Map<string, Provider>()
  const subnets = new Map<string, Subnet>()
  let size = 0
  // Seconds from the first call, which V8 keeps in the record itself up to 2^31; those since the epoch leave that range in 2038.
  let epoch: number | undefined
  const secondsAt = (now: number) => Math.floor((now - (epoch ??= now)) / 1000)

  const leave = (subnet: Subnet, count: number) => {
    subnet.records -= count
    if (subnet.records === 0) subnets.delete(subnet.name)
  }

  /** Forgets a record, when the one before it in the list of its key is known. */
  const unlink = (record: ProviderRecord, before: ProviderRecord | undefined) => {
    const { key, next, provider } = record
    if (before !== undefined) before.next = next
    else if (next === undefined) lists.delete(key)
    else lists.set(key, next)
    size--
    detach(record)
    if (provider.subnet !== undefined) leave(provider.subnet, 1)
    if (--provider.records === 0) providers.delete(provider.id)
  }
  const forget = (gone: ProviderRecord) => {
    let before: ProviderRecord | undefined
    for (let record = lists.get(gone.key); record !== gone; record = record?.next) before = record
    unlink(gone, before)
  }
  const forgetExpired = (key: string, seconds: number): number => {
    let before: ProviderRecord | undefined
    let count = 0
    for (let record = lists.get(key); record !== undefined; record = record.next) {
      if (record.until <= seconds) {
        unlink(record, before)
        count++
      } else before = record
    }
    return count
  }

  const keyCursor = cursorOf(lists)
  const sweep = (seconds: number, keys: number): number => {
    let gone = 0
    // Once round is enough.
    for (let i = Math.min(keys, lists.size); i > 0; i--) {
      const key = keyCursor()
      if (key !== undefined) gone += forgetExpired(key, seconds)
    }
    return gone
  }

  /** The provider with the most records, itself or its subnet, among those that were looked at. */
  let heaviest: Provider | undefined
  const providerCursor = cursorOf(providers)
  /** Makes room for one record of a sender that has so many; false when nobody known has as many. */
  const makeRoom = (weight: number): boolean => {
    if (heaviest?.records === 0) heaviest = undefined
    for (let i = 0; i < sampleMax; i++) {
      const id = providerCursor()
      const provider = id === undefined ? undefined : providers.get(id)
      if (provider !== undefined && (heaviest === undefined || weightOf(provider) > weightOf(heaviest))) {
        heaviest = provider
      }
    }
    if (heaviest?.oldest === undefined || weightOf(heaviest) < weight) return false
    forget(heaviest.oldest)
    return true
  }

  return {
    put: (keyBytes, id, body, now, { subnet: subnetName, ttlSeconds = recordSecondsMax } = {}) => {
      if (keyBytes.length < 1 || keyBytes.length > keyBytesMax) return "key"
      if (!(ttlSeconds > 0)) return "ttl"
      if (body !== undefined && body.length > bodyBytesMax) return "size"
      const seconds = secondsAt(now)
      const until = seconds + Math.ceil(Math.min(ttlSeconds, recordSecondsMax))
      sweep(seconds, 1)
      const key = keyOf(keyBytes)
      const known = providers.get(keyOf(id))
      // What it says of itself now holds for all that it has said.
      const renew = (provider: Provider) => {
        if (body !== undefined) {
          const text = keyOf(body)
          if (provider.body !== text) provider.body = text
        }
        if (provider.subnet?.name !== subnetName) {
          if (provider.subnet !== undefined) leave(provider.subnet, provider.records)
          provider.subnet = subnetName === undefined ? undefined : enter(subnets, subnetName, provider.records)
        }
      }

      let ofKey = 0
      let ofSubnet = 0
      let first: ProviderRecord | undefined
      for (let record = lists.get(key); record !== undefined; record = record.next) {
        if (record.provider === known) {
          record.until = until
          detach(record)
          append(record)
          renew(known)
          return "stored"
        }
        ofKey++
        if (subnetName !== undefined && record.provider.subnet?.name === subnetName) ofSubnet++
        if (first === undefined || record.until < first.until) first = record
      }
      const ofSender = known?.records ?? 0
      const subnet = subnetName === undefined ? undefined : subnets.get(subnetName)
      if (ofSubnet >= providersPerSubnetMax) return "subnet"
      if (known?.oldest !== undefined && ofSender >= recordsPerSenderMax) forget(known.oldest)
      else if (subnet !== undefined && subnet.records >= recordsPerSubnetMax) return "subnet"
      if (first !== undefined && ofKey >= providersPerKeyMax) forget(first)
      else if (size >= recordsMax && !makeRoom(Math.max(ofSender, subnet?.records ?? 0))) return "full"

      // Making room may have taken the last record of the sender.
      let provider = providers.get(keyOf(id))
      if (provider === undefined) {
        provider = {
          id: keyOf(id),
          body: undefined,
          records: 0,
          subnet: undefined,
          oldest: undefined,
          newest: undefined
        }
        providers.set(provider.id, provider)
      }
      renew(provider)
      provider.records++
      if (provider.subnet !== undefined) provider.subnet.records++
      const record: ProviderRecord = {
        key,
        provider,
        until,
        next: lists.get(key),
        older: undefined,
        newer: undefined
      }
      append(record)
      lists.set(key, record)
      size++
      return "stored"
    },
    get: (keyBytes, now, bytesMax, bodyOf) => {
      const seconds = secondsAt(now)
      const key = keyOf(keyBytes)
      forgetExpired(key, seconds)
      const found: Array<Uint8Array> = []
      let left = bytesMax
      const head = lists.get(key)
      let last: ProviderRecord | undefined
      for (let record = head; record !== undefined; last = record, record = record.next) {
        const { body, id } = record.provider
        const bytes = body === undefined ? bodyOf?.(bytesOf(id)) : bytesOf(body)
        if (bytes === undefined) continue
        left -= bytes.length + peerOverhead
        if (left < 0) {
          // The next answer begins here.
          if (last !== undefined) turn(lists, key, head!, last)
          break
        }
        found.push(bytes)
      }
      return found
    },
    remove: (key, id) => {
      const provider = providers.get(keyOf(id))
      let record = provider === undefined ? undefined : lists.get(keyOf(key))
      while (record !== undefined && record.provider !== provider) record = record.next
      if (record !== undefined) forget(record)
    },
    sweep: (now, keys) => sweep(secondsAt(now), keys),
    size: () => size,
    keys: () => lists.size
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface ProviderRecord {
  /** The bytes of the key as latin1, and so below. */
  readonly key: string
  readonly provider: Provider
  /** In seconds from the first call; it is served before. */
  until: number
  /** The next one of the key. */
  next: ProviderRecord | undefined
  /** Those of the provider that it announced before and after this one. */
  older: ProviderRecord | undefined
  newer: ProviderRecord | undefined
}

interface Provider {
  readonly id: string
  body: string | undefined
  /** How many records name it: it goes with the last. */
  records: number
  subnet: Subnet | undefined
  /** The ends of its list. */
  oldest: ProviderRecord | undefined
  newest: ProviderRecord | undefined
}

interface Subnet {
  readonly name: string
  records: number
}

/** Providers that are looked at to find one that gives way. */
const sampleMax = 64

/** A tag and a length of at most two bytes. */
const peerOverhead = 3

function weightOf({ records, subnet }: Provider): number {
  return Math.max(records, subnet?.records ?? 0)
}

function enter(subnets: Map<string, Subnet>, name: string, records: number): Subnet {
  let subnet = subnets.get(name)
  if (subnet === undefined) {
    subnet = { name, records: 0 }
    subnets.set(name, subnet)
  }
  subnet.records += records
  return subnet
}

/** Goes round and round over the keys of a map, which come and go meanwhile. */
function cursorOf(map: ReadonlyMap<string, unknown>): () => string | undefined {
  let cursor = map.keys()
  return () => {
    let found = cursor.next()
    if (found.done === true) {
      cursor = map.keys()
      found = cursor.next()
    }
    return found.value
  }
}

/** Takes a record out of the list of its provider. */
function detach(record: ProviderRecord): void {
  const { newer, older, provider } = record
  if (older === undefined) provider.oldest = newer
  else older.newer = newer
  if (newer === undefined) provider.newest = older
  else newer.older = older
}

/** Puts a record at the end of the list of its provider. */
function append(record: ProviderRecord): void {
  const { provider } = record
  record.older = provider.newest
  record.newer = undefined
  if (provider.newest === undefined) provider.oldest = record
  else provider.newest.newer = record
  provider.newest = record
}

/** Puts the records up to `last` behind the others of their key. */
function turn(lists: Map<string, ProviderRecord>, key: string, head: ProviderRecord, last: ProviderRecord): void {
  const next = last.next
  if (next === undefined) return
  let end = next
  while (end.next !== undefined) end = end.next
  end.next = head
  last.next = undefined
  lists.set(key, next)
}

function bytesOf(text: string): Uint8Array {
  return Buffer.from(text, "latin1")
}
