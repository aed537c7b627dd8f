/**
 * The node's identity in the file `identity.key` of the data directory.
 *
 * The file holds an Ed25519 private key in libp2p's protobuf form, 68 bytes, readable by its owner only (0600).
 * rust-libp2p's `Keypair::from_protobuf_encoding` reads the same form. A crash while it is written leaves either no
 * file or a whole one. A file that other users may read, or that does not decode, is refused and never replaced: with a
 * new key the node would be another peer.
 */
import { Effect, FileSystem, Layer, Path, type PlatformError, Redacted } from "effect"
import { randomBytes } from "node:crypto"
import { IdentityError } from "../../schema/NetworkError.ts"
import { Identity } from "../../services/Identity.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import * as AtomicFile from "./AtomicFile.ts"
import * as SeededIdentity from "./SeededIdentity.ts"

/**
 * The identity kept in a directory. The identity and the directory (0700) are made on first use.
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
export const layerEphemeral: Layer.Layer<Identity> = Layer.sync(Identity, () => generate())

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const fileName = "identity.key"
// A key takes 68 bytes. An RSA key, which is refused with a message of its own, takes up to 4 KiB.
const fileBytesMax = 8192

const generate = (): Identity["Service"] => SeededIdentity.make(randomBytes(32))

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
  // Windows has no such bits, and node reports them as set.
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
  const type = otherTypes[bytes[1] ?? 0]
  if (bytes[0] === 0x08 && bytes[2] === 0x12 && type !== undefined) {
    return yield* refused(`holds a key of type ${type}, and only Ed25519 is used here; ${damaged}`)
  }
  const identity = decode(bytes)
  if (identity === undefined) {
    return yield* refused(`is damaged: its ${bytes.byteLength} bytes are no private key; ${damaged}`)
  }
  return identity
})

/** Kinds of keys by their number in libp2p's protobuf form, where Ed25519 is 1. */
const otherTypes: Readonly<Record<number, string>> = { 0: "RSA", 2: "secp256k1", 3: "ECDSA" }

/**
 * The identity of a file: `[08 01][12 40][32 seed][32 public key]`, the public key being the seed's. Older software
 * wrote the public key twice, and 60 for 40. Undefined when the bytes are anything else.
 */
function decode(bytes: Uint8Array): Identity["Service"] | undefined {
  if (bytes.byteLength < 68) return undefined
  const identity = SeededIdentity.make(bytes.subarray(4, 36))
  const form = Redacted.value(identity.privateKey)
  const older = Uint8Array.of(...form, ...form.subarray(36))
  older[3] = 0x60
  return [form, older].some((known) => Buffer.from(known).equals(bytes)) ? identity : undefined
}

const create = Effect.fnUntraced(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const directory = path.dirname(file)
  const temporary = `${file}.${process.pid}.tmp`
  const identity = generate()

  yield* Effect.gen(function*() {
    yield* fs.makeDirectory(directory, { recursive: true, mode: 0o700 })
    // A crash may have left part of a key.
    yield* fs.remove(temporary, { force: true })
    yield* AtomicFile.write(file, Redacted.value(identity.privateKey), { temporary, flag: "wx" })
    // A directory cannot be opened on Windows, where a rename is durable without it.
    if (process.platform !== "win32") {
      yield* Effect.scoped(Effect.flatMap(fs.open(directory, { flag: "r" }), (handle) => handle.sync))
    }
  }).pipe(
    Effect.onError(() => Effect.ignore(fs.remove(temporary, { force: true }))), // the error that matters is the first
    Effect.mapError(failed(file, "cannot be written"))
  )
  return identity
})
