/**
 * Provider records of others, as a server of the DHT keeps them: in memory, in the bytes in which they are answered.
 *
 * What a record costs decides how many a node can keep. The id and the addresses of a provider are there once, whatever it provides, as
 * texts of one byte a character, which have a third of the overhead of small buffers; a record is its place in two lists, that of its key
 * and that of its provider, and a row of numbers (`ProviderRows`). Of a key there is half of its hash. A provider that comes with other
 * addresses has them in all its records at once.
 *
 * Anybody may send records, under as many ids as they like, so everything is bounded. Who has more than others gives way: when the store is
 * full, a newcomer takes the place of a record from the subnet, or else the sender, that has the most of all as far as is known, and is
 * refused when its own has more. A sender loses what it announced longest ago. Whoever commands many subnets can still push others out,
 * until they announce again.
 *
 * Time is given from outside, in milliseconds since the epoch, and counts in whole seconds.
 */
import { hash } from "node:crypto"
import { keyBytesMax } from "../../../schema/Content.ts"
import { peerOverhead } from "../wire/Message.ts"
import { keyOf } from "../wire/Nodes.ts"
import { none, ProviderRows, RecordRows, type Subnet } from "./ProviderRows.ts"

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
   * How many records there may be. Defaults to 200,000, which take 19 MB with few providers, 55 MB when every provider is another and has two
   * addresses.
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
  const lists = new Map<string, number>()
  const providers = new Map<string, number>()
  const subnets = new Map<string, Subnet>()
  const rows = new RecordRows(recordsMax)
  const senders = new ProviderRows(recordsMax)
  let size = 0
  // Seconds from the first call, which are small enough for a column; those since the epoch are not any more from 2038 on.
  let epoch: number | undefined
  const secondsAt = (now: number) => Math.floor((now - (epoch ??= now)) / 1000)
  const listOf = (key: string): number => lists.get(key) ?? none

  const leave = (subnet: Subnet, count: number) => {
    subnet.records -= count
    if (subnet.records === 0) subnets.delete(subnet.name)
  }

  /** Takes a record out of the list of its provider. */
  const detach = (record: number) => {
    const provider = rows.provider[record]!
    const newer = rows.newer[record]!
    const older = rows.older[record]!
    if (older === none) senders.oldest[provider] = newer
    else rows.newer[older] = newer
    if (newer === none) senders.newest[provider] = older
    else rows.older[newer] = older
  }
  /** Puts a record at the end of the list of its provider. */
  const append = (record: number) => {
    const provider = rows.provider[record]!
    const newest = senders.newest[provider]!
    rows.older[record] = newest
    rows.newer[record] = none
    if (newest === none) senders.oldest[provider] = record
    else rows.newer[newest] = record
    senders.newest[provider] = record
  }

  /** Forgets a record, when the one before it in the list of its key is known. */
  const unlink = (record: number, before: number) => {
    const key = rows.key[record]!
    const next = rows.next[record]!
    const provider = rows.provider[record]!
    if (before !== none) rows.next[before] = next
    else if (next === none) lists.delete(key)
    else lists.set(key, next)
    size--
    detach(record)
    rows.give(record)
    const subnet = senders.subnet[provider]
    if (subnet !== undefined) leave(subnet, 1)
    if (--senders.records[provider]! > 0) return
    providers.delete(senders.id[provider]!)
    senders.give(provider)
    if (heaviest === provider) heaviest = none
  }
  const forget = (gone: number) => {
    let before = none
    for (let record = listOf(rows.key[gone]!); record !== gone; record = rows.next[record]!) before = record
    unlink(gone, before)
  }
  const forgetExpired = (key: string, seconds: number): number => {
    let before = none
    let count = 0
    for (let record = listOf(key); record !== none;) {
      const next = rows.next[record]!
      if (rows.until[record]! <= seconds) {
        unlink(record, before)
        count++
      } else before = record
      record = next
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
  let heaviest = none
  const providerCursor = cursorOf(providers)
  /** Makes room for one record of a sender that has so many; false when nobody known has as many. */
  const makeRoom = (weight: number): boolean => {
    for (let i = 0; i < sampleMax; i++) {
      const id = providerCursor()
      const provider = id === undefined ? undefined : providers.get(id)
      if (provider !== undefined && (heaviest === none || senders.weightOf(provider) > senders.weightOf(heaviest))) {
        heaviest = provider
      }
    }
    if (heaviest === none || senders.weightOf(heaviest) < weight) return false
    forget(senders.oldest[heaviest]!)
    return true
  }

  /** Puts the records up to `last` behind the others of their key. */
  const turn = (key: string, last: number) => {
    const next = rows.next[last]!
    if (next === none) return
    let end = next
    while (rows.next[end] !== none) end = rows.next[end]!
    rows.next[end] = listOf(key)
    rows.next[last] = none
    lists.set(key, next)
  }

  return {
    put: (keyBytes, id, body, now, { subnet: subnetName, ttlSeconds = recordSecondsMax } = {}) => {
      if (keyBytes.length < 1 || keyBytes.length > keyBytesMax) return "key"
      if (!(ttlSeconds > 0)) return "ttl"
      if (body !== undefined && body.length > bodyBytesMax) return "size"
      const seconds = secondsAt(now)
      const until = seconds + Math.ceil(Math.min(ttlSeconds, recordSecondsMax))
      sweep(seconds, 1)
      const name = nameOf(keyBytes)
      const sender = keyOf(id)
      const known = providers.get(sender) ?? none
      // What it says of itself now holds for all that it has said.
      const renew = (provider: number) => {
        if (body !== undefined) senders.setBody(provider, id, body)
        const subnet = senders.subnet[provider]
        if (subnet?.name !== subnetName) {
          const count = senders.records[provider]!
          if (subnet !== undefined) leave(subnet, count)
          senders.subnet[provider] = subnetName === undefined ? undefined : enter(subnets, subnetName, count)
        }
      }

      let ofKey = 0
      let ofSubnet = 0
      let first = none
      for (let record = listOf(name); record !== none; record = rows.next[record]!) {
        const provider = rows.provider[record]!
        if (provider === known) {
          rows.until[record] = until
          detach(record)
          append(record)
          renew(known)
          return "stored"
        }
        ofKey++
        if (subnetName !== undefined && senders.subnet[provider]?.name === subnetName) ofSubnet++
        if (first === none || rows.until[record]! < rows.until[first]!) first = record
      }
      const ofSender = known === none ? 0 : senders.records[known]!
      const subnet = subnetName === undefined ? undefined : subnets.get(subnetName)
      if (ofSubnet >= providersPerSubnetMax) return "subnet"
      if (known !== none && ofSender >= recordsPerSenderMax) forget(senders.oldest[known]!)
      else if (subnet !== undefined && subnet.records >= recordsPerSubnetMax) return "subnet"
      if (first !== none && ofKey >= providersPerKeyMax) forget(first)
      else if (size >= recordsMax && !makeRoom(Math.max(ofSender, subnet?.records ?? 0))) return "full"

      // Making room may have taken the last record of the sender.
      let provider = providers.get(sender)
      if (provider === undefined) {
        provider = senders.take(sender)
        providers.set(sender, provider)
      }
      renew(provider)
      senders.records[provider]!++
      const counted = senders.subnet[provider]
      if (counted !== undefined) counted.records++
      const next = listOf(name)
      const record = rows.take()
      // One text for all records of the key.
      rows.key[record] = next === none ? name : rows.key[next]!
      rows.provider[record] = provider
      rows.until[record] = until
      rows.next[record] = next
      append(record)
      lists.set(name, record)
      size++
      return "stored"
    },
    get: (keyBytes, now, bytesMax, bodyOf) => {
      const seconds = secondsAt(now)
      const name = nameOf(keyBytes)
      forgetExpired(name, seconds)
      const found: Array<Uint8Array> = []
      let left = bytesMax
      let last = none
      for (let record = listOf(name); record !== none; last = record, record = rows.next[record]!) {
        const provider = rows.provider[record]!
        const bytes = senders.bodyOf(provider) ?? bodyOf?.(Buffer.from(senders.id[provider]!, "latin1"))
        if (bytes === undefined) continue
        left -= bytes.length + peerOverhead
        if (left < 0) {
          // The next answer begins here.
          if (last !== none) turn(name, last)
          break
        }
        found.push(bytes)
      }
      return found
    },
    remove: (keyBytes, id) => {
      const provider = providers.get(keyOf(id))
      if (provider === undefined) return
      let record = listOf(nameOf(keyBytes))
      while (record !== none && rows.provider[record] !== provider) record = rows.next[record]!
      if (record !== none) forget(record)
    },
    sweep: (now, keys) => sweep(secondsAt(now), keys),
    size: () => size,
    keys: () => lists.size
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** Providers that are looked at to find one that gives way. */
const sampleMax = 64

/**
 * A key as it is told from others: the first 16 bytes of its hash as latin1, since keys themselves are twice as long. To find two that share them
 * takes 2 ** 64 tries.
 */
const nameOf = (key: Uint8Array): string => hash("sha256", key, "buffer").toString("latin1", 0, 16)

function enter(subnets: Map<string, Subnet>, name: string, records: number): Subnet {
  let subnet = subnets.get(name)
  if (subnet === undefined) {
    subnet = { name, records: 0 }
    subnets.set(name, subnet)
  }
  subnet.records += records
  return subnet
}

/**
 * Goes round and round over the keys of a map, which come and go meanwhile. Begins when it is asked first: an iterator that rests keeps all
 * tables from which its map has grown.
 */
function cursorOf(map: ReadonlyMap<string, unknown>): () => string | undefined {
  let cursor: Iterator<string> | undefined
  return () => {
    let found = cursor?.next()
    if (found === undefined || found.done === true) {
      cursor = map.keys()
      found = cursor.next()
    }
    return found.done === true ? undefined : found.value
  }
}
