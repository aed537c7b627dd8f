/**
 * Provider records of others, as a server of the DHT keeps them: in memory, in the bytes in which they are answered.
 *
 * The cost of a record decides how many a node can keep. The id and the addresses of a provider are stored once,
 * whatever it provides, as latin1 text, which has a third of the overhead of a small buffer. A record is a row of
 * numbers (`ProviderRows`) in two lists: the records of its key and the records of its provider. A key is stored as
 * half of its hash. When a provider announces other addresses, all its records have them.
 *
 * Anybody may send records, under as many ids as they like, so everything is bounded. When the store is full, a new
 * record evicts the oldest record of the provider that has the most, by itself or by its subnet, among the providers
 * looked at. It is refused when its own provider or subnet has more. An attacker with many subnets can still push
 * others out, until they announce again.
 *
 * The caller gives the time, in milliseconds of the monotonic clock. It counts in whole seconds.
 */
import { hash } from "node:crypto"
import { keyBytesMax } from "../../../schema/Content.ts"
import { peerOverhead } from "../wire/Message.ts"
import { keyOf } from "../wire/Nodes.ts"
import { none, ProviderRows, RecordRows } from "./ProviderRows.ts"
import * as Shares from "./Shares.ts"

/** Why a record was not stored. */
export type ProviderRefusal =
  /** The key is empty, or too long. */
  | "key"
  /** The time to live is not above zero. */
  | "ttl"
  /** The encoded provider is longer than {@link ProviderRecordsOptions.bodyBytesMax}. */
  | "size"
  /** The subnet has its share of all records, or of the providers of this key. */
  | "subnet"
  /** The store is full, and no provider that was looked at has as many records as the sender or its subnet. */
  | "full"

export interface ProviderRecordsOptions {
  /**
   * How many records there may be. Defaults to 200,000, which take 19 MB with few providers, and 55 MB when each record
   * has a provider of its own with two addresses.
   */
  readonly recordsMax?: number | undefined
  /**
   * How many records one sender may have; one more replaces its oldest. Defaults to half of all, since in a small
   * network one node may provide nearly everything, and one server store it.
   */
  readonly recordsPerSenderMax?: number | undefined
  /** How many records may come from one subnet, where the subnet is given. Defaults to half of all. */
  readonly recordsPerSubnetMax?: number | undefined
  /**
   * How many providers a key may have. The record that expires first makes room. Defaults to 256: an answer of 16 KiB
   * holds 150, and the next answer begins with the others. Rust keeps 20.
   */
  readonly providersPerKeyMax?: number | undefined
  /** How many providers of a key may come from one subnet, where the subnet is given. Defaults to a quarter. */
  readonly providersPerSubnetMax?: number | undefined
  /** How many bytes the id and the addresses of a provider may have. Defaults to 1,024, some twenty addresses. */
  readonly bodyBytesMax?: number | undefined
}

/** How long a record is served at most, in seconds: 24 hours. Rust, Go and JavaScript serve it as long or longer. */
const recordSecondsMax = 24 * 60 * 60

export interface ProviderRecords {
  /**
   * Stores or renews a record. The bytes are copied. `body` is the provider as it is answered, a Peer message; without
   * one the record is left out of answers until `bodyOf` of {@link ProviderRecords.get} knows it. `ttlSeconds` shortens
   * the 24 hours. The sender is counted by `subnet`; one without is not counted.
   */
  readonly put: (
    key: Uint8Array,
    provider: Uint8Array,
    body: Uint8Array | undefined,
    now: number,
    options?: { readonly ttlSeconds?: number | undefined; readonly subnet?: string | undefined }
  ) => "stored" | ProviderRefusal
  /**
   * The providers of a key, at most `bytesMax` bytes of them. Those that did not fit come first the next time. `bodyOf`
   * is asked about providers that were stored without a body.
   */
  readonly get: (
    key: Uint8Array,
    now: number,
    bytesMax: number,
    bodyOf?: (provider: Uint8Array) => Uint8Array | undefined
  ) => Array<Uint8Array>
  /** Forgets that a provider has a key. */
  readonly remove: (key: Uint8Array, provider: Uint8Array) => void
  /**
   * Forgets what has expired of the next so many keys. Returns how many records that were. Each put looks at one key.
   */
  readonly sweep: (now: number, keys: number) => number
  /** How many records there are, including expired ones that are not swept yet. */
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
  const subnets = new Shares.Subnets()
  const rows = new RecordRows(recordsMax)
  const senders = new ProviderRows(recordsMax)
  let size = 0
  // Seconds are counted from the first call, so that they fit into an Int32Array wherever the clock has its zero.
  let began: number | undefined
  const secondsAt = (now: number) => Math.floor((now - (began ??= now)) / 1000)
  const listOf = (key: string): number => lists.get(key) ?? none

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
    if (subnet !== undefined) subnets.leave(subnet, 1)
    if (--senders.records[provider]! > 0) return
    providers.delete(senders.id[provider]!)
    senders.give(provider)
    heaviest.forget(provider)
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

  const keyCursor = Shares.cursorOf(lists)
  const sweep = (seconds: number, keys: number): number => {
    let gone = 0
    // Once around is enough.
    for (let i = Math.min(keys, lists.size); i > 0; i--) {
      const key = keyCursor()
      if (key !== undefined) gone += forgetExpired(key, seconds)
    }
    return gone
  }

  const heaviest = Shares.makeHeaviest(providers, (provider) => senders.weightOf(provider))
  /** Makes room for one record of a sender with so many. False when no provider that was looked at has as many. */
  const makeRoom = (weight: number): boolean => {
    const provider = heaviest.atLeast(weight)
    if (provider === undefined) return false
    forget(senders.oldest[provider]!)
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
      // Body and subnet are the provider's, so all its records have the new ones.
      const renew = (provider: number) => {
        if (body !== undefined) senders.setBody(provider, id, body)
        const subnet = senders.subnet[provider]
        if (subnet?.name !== subnetName) {
          const count = senders.records[provider]!
          if (subnet !== undefined) subnets.leave(subnet, count)
          senders.subnet[provider] = subnetName === undefined ? undefined : subnets.enter(subnetName, count)
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
      const subnet = subnets.get(subnetName)
      if (ofSubnet >= providersPerSubnetMax) return "subnet"
      if (known !== none && ofSender >= recordsPerSenderMax) forget(senders.oldest[known]!)
      else if (subnet !== undefined && subnet.weight >= recordsPerSubnetMax) return "subnet"
      if (first !== none && ofKey >= providersPerKeyMax) forget(first)
      else if (size >= recordsMax && !makeRoom(Math.max(ofSender, subnet?.weight ?? 0))) return "full"

      // Making room may have taken the last record of the sender.
      let provider = providers.get(sender)
      if (provider === undefined) {
        provider = senders.take(sender)
        providers.set(sender, provider)
      }
      renew(provider)
      senders.records[provider]!++
      const counted = senders.subnet[provider]
      if (counted !== undefined) counted.weight++
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

/**
 * What a key is stored by: the first 16 bytes of its hash as latin1, half as long as most keys. To find two keys that
 * share them takes 2 ** 64 tries.
 */
const nameOf = (key: Uint8Array): string => hash("sha256", key, "buffer").toString("latin1", 0, 16)
