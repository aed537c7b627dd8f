/**
 * The node's identity in the file `identity.key` of the data directory.
 *
 * The file holds an Ed25519 private key in libp2p's protobuf form, 68 bytes, readable by its owner only (0600): the
 * form that rust-libp2p's `Keypair::from_protobuf_encoding` reads. It is written under a temporary name, synced and
 * renamed, and the directory is synced, so that a crash leaves either no file or a whole one. A file that others may
 * read, or that does not decode, is refused and never replaced: a new key would be another peer.
 */
import {
  generateKeyPair,
  generateKeyPairFromSeed,
  privateKeyFromProtobuf,
  privateKeyToProtobuf
} from "@libp2p/crypto/keys"
import type { PrivateKey } from "@libp2p/interface"
import { peerIdFromPrivateKey } from "@libp2p/peer-id"
import { Effect, FileSystem, Layer, Path, type PlatformError, Redacted } from "effect"
import { IdentityError } from "../../schema/NetworkError.ts"
import type { PeerId } from "../../schema/Peer.ts"
import { Identity } from "../../services/Identity.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"

/**
 * The identity kept in a directory, made on first use; so is the directory (0700).
 */
export const make = Effect.fnUntraced(function*(
  directory: string
): Effect.fn.Return<Identity["Service"], IdentityError, FileSystem.FileSystem | Path.Path> {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(path.resolve(directory), fileName)
  return yield* fs.exists(file).pipe(
    Effect.mapError(failed(file, "cannot be looked for")),
    Effect.flatMap((exists) => exists ? read(file) : create(file))
  )
})

/**
 * The identity kept under `NetworkConfig.dataDirectory`; a new one, forgotten with the process, without a directory.
 */
export const layer: Layer.Layer<Identity, IdentityError, NetworkConfig | FileSystem.FileSystem | Path.Path> = Layer
  .unwrap(
    Effect.map(
      NetworkConfig,
      ({ dataDirectory }) => dataDirectory === undefined ? layerEphemeral : Layer.effect(Identity, make(dataDirectory))
    )
  )

/** A new identity, forgotten with the process. */
export const layerEphemeral: Layer.Layer<Identity> = Layer.effect(
  Identity,
  Effect.map(Effect.promise(() => generateKeyPair("Ed25519")), identityOf)
)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const fileName = "identity.key"
// A key takes 68 bytes; one of RSA, which is refused with its own message, up to 4 KiB.
const fileBytesMax = 8192

function identityOf(key: PrivateKey): Identity["Service"] {
  return {
    peerId: peerIdFromPrivateKey(key).toString() as PeerId,
    privateKey: Redacted.make(privateKeyToProtobuf(key), { label: "private key" })
  }
}

function failed(file: string, what: string) {
  return (cause: PlatformError.PlatformError) =>
    new IdentityError({ path: file, detail: `${what}: ${cause.message}`, cause })
}

const read = Effect.fnUntraced(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  const refused = (detail: string, cause?: unknown) =>
    new IdentityError({ path: file, detail, ...(cause === undefined ? {} : { cause }) })

  const info = yield* Effect.mapError(fs.stat(file), failed(file, "cannot be read"))
  if (info.type !== "File") return yield* refused("is not a file; move it away, or choose another dataDirectory")
  // Windows has no such bits: node reports them as set.
  if (process.platform !== "win32" && (info.mode & 0o077) !== 0) {
    return yield* refused(
      `others may read the private key (mode ${
        (info.mode & 0o777).toString(8).padStart(4, "0")
      }); run: chmod 600 ${file}`
    )
  }
  const damaged = "restore it from a backup, or remove it to start as another peer"
  if (Number(info.size) > fileBytesMax) return yield* refused(`is damaged: ${info.size} bytes are no key; ${damaged}`)
  const bytes = yield* Effect.mapError(fs.readFile(file), failed(file, "cannot be read"))
  const noKey = (cause?: unknown) =>
    refused(`is damaged: its ${bytes.byteLength} bytes are no private key; ${damaged}`, cause)
  const key = yield* Effect.try({ try: () => privateKeyFromProtobuf(bytes), catch: noKey })
  if (key.type !== "Ed25519") {
    return yield* refused(`holds a key of type ${key.type}, and only Ed25519 is used here; ${damaged}`)
  }
  // The file holds both halves, and libp2p believes them.
  const whole = yield* Effect.tryPromise({
    try: () => generateKeyPairFromSeed("Ed25519", key.raw.subarray(0, 32)),
    catch: noKey
  })
  if (!key.equals(whole)) return yield* noKey()
  return identityOf(whole)
})

const create = Effect.fnUntraced(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const directory = path.dirname(file)
  const temporary = `${file}.${process.pid}.tmp`
  const key = yield* Effect.promise(() => generateKeyPair("Ed25519"))

  yield* Effect.gen(function*() {
    yield* fs.makeDirectory(directory, { recursive: true, mode: 0o700 })
    // What a crash left is of no use.
    yield* fs.remove(temporary, { force: true })
    yield* Effect.scoped(Effect.gen(function*() {
      const handle = yield* fs.open(temporary, { flag: "wx", mode: 0o600 })
      yield* handle.writeAll(privateKeyToProtobuf(key))
      yield* handle.sync
    }))
    yield* fs.rename(temporary, file)
    // A directory cannot be opened on Windows, where a rename is durable without it.
    if (process.platform !== "win32") {
      yield* Effect.scoped(Effect.flatMap(fs.open(directory, { flag: "r" }), (handle) => handle.sync))
    }
  }).pipe(
    Effect.onError(() => Effect.ignore(fs.remove(temporary, { force: true }))), // the error that matters is the first
    Effect.mapError(failed(file, "cannot be written"))
  )
  return identityOf(key)
})
