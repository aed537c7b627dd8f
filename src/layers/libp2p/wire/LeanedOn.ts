/**
 * The packages of which this library uses private members: pinned exactly in `package.json`, and looked at before a
 * node starts.
 *
 * A private member may change in any release. Without this check a node with another version would start, and fail or
 * slow down later, in the middle of a stream. An overridden dependency is the usual cause.
 */
import type { Logger, MultiaddrConnection } from "@libp2p/interface"
import { multiaddr } from "@multiformats/multiaddr"
import { HostError } from "../../../schema/NetworkError.ts"

/**
 * The versions whose private members are used here. Written here as well as in `package.json`, since a bundled program
 * has none; a spec compares the two.
 */
export const versions = {
  "@chainsafe/libp2p-noise": "17.0.0",
  "@chainsafe/libp2p-yamux": "8.0.1",
  "@libp2p/circuit-relay-v2": "4.2.13",
  "@libp2p/kad-dht": "16.4.5",
  "@libp2p/tcp": "11.0.28",
  libp2p: "3.3.11"
} as const

export type Pinned = keyof typeof versions

/** What `typeof` says of a member; "object" is never null. */
export type Kind = "boolean" | "function" | "number" | "object" | "string"

/** Members by their path from an object, as in `routingTable.kb`. */
export type Members = Readonly<Record<string, Kind>>

/** Throws a `HostError` that names package, version and member, unless the object has each member of its kind. */
export const assertMembers = (name: Pinned, object: unknown, members: Members): void => {
  for (const [path, kind] of Object.entries(members)) assertMember(name, object, path, kind)
}

/** {@link assertMembers} of one. */
export const assertMember = (name: Pinned, object: unknown, path: string, kind: Kind): void => {
  let value = object
  for (const key of path.split(".")) {
    value = value === null || value === undefined ? undefined : (value as Readonly<Record<string, unknown>>)[key]
  }
  const found = value === null ? "null" : typeof value
  if (found !== kind) throw mismatch(name, `its private member ${path} is ${found} where ${kind} is expected`)
}

/** Asserts once in a process, since a package does not change while the process runs. A failure asserts anew. */
export const once = <Args extends ReadonlyArray<unknown>>(assert: (...args: Args) => void | Promise<void>) => {
  let hasPassed = false
  return async (...args: Args): Promise<void> => {
    if (hasPassed) return
    await assert(...args)
    hasPassed = true
  }
}

/** The error for a package that is not as expected, which says in what. */
export const mismatch = (name: Pinned, detail: string): HostError =>
  new HostError({
    module: name,
    detail: `this is not version ${versions[name]}: ${detail}; install exactly ${name}@${versions[name]}`
  })

/** A connection that leads nowhere, on which libp2p builds the objects whose members are asserted. */
export const connectionToNowhere = (): MultiaddrConnection =>
  // Only what libp2p reads of a connection while it builds those objects.
  Object.assign(new EventTarget(), {
    direction: "outbound",
    status: "open",
    readStatus: "readable",
    writeStatus: "writable",
    remoteAddr: multiaddr("/ip4/127.0.0.1/tcp/1"),
    timeline: { open: 0 },
    log: silentLogger,
    send: () => true,
    push: () => {},
    close: async () => {}
  }) as unknown as MultiaddrConnection

/** Logs nothing, so that what is built for an assertion alone does not show in a log. */
export const silentLogger: Logger = Object.assign(() => {}, {
  error: () => {},
  trace: () => {},
  enabled: false,
  newScope: () => silentLogger
})
