/**
 * The node's identity in the file `identity.key` of the data directory.
 *
 * The file holds an Ed25519 private key in libp2p's protobuf form, 68 bytes, readable by its owner only (0600).
 * rust-libp2p's `Keypair::from_protobuf_encoding` reads the same form. A crash while it is written leaves either no
 * file or a whole one. A file that other users may read, or that does not decode, is refused and never replaced: with a
 * new key the node would be another peer. For the same reason `layer` writes the file again within 5 s when it is
 * removed while the node runs. To start as another peer, stop the node first.
 */
import { Effect, FileSystem, Layer, Path, type PlatformError, Redacted } from "effect"
import { randomBytes } from "node:crypto"
import { IdentityError } from "../../schema/NetworkError.ts"
import { Identity } from "../../services/Identity.ts"
import { NetworkConfig } from "../../services/NetworkConfig.ts"
import * as Supervised from "../Supervised.ts"
import * as AtomicFile from "./AtomicFile.ts"
import * as DataDirectory from "./DataDirectory.ts"
import * as Directory from "./Directory.ts"
import { reasonOf } from "./Reason.ts"
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
      ({ dataDirectory }) =>
        dataDirectory === undefined
          ? layerEphemeral
          : Layer.effect(Identity, Effect.tap(make(dataDirectory), (identity) => keep(dataDirectory, identity)))
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
    new IdentityError({ path: file, detail: `${what}: ${reasonOf(cause)}`, cause })
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
  const noKey = (cause?: unknown) =>
    refused(`is damaged: its ${bytes.byteLength} bytes are no private key; ${damaged}`, cause)
  const { data, type } = yield* Effect.try({ try: () => fieldsOf(bytes), catch: noKey })
  const other = otherTypes[type ?? -1]
  if (other !== undefined) {
    return yield* refused(`holds a key of type ${other}, and only Ed25519 is used here; ${damaged}`)
  }
  const identity = type === 1 ? identityOf(data) : undefined
  return identity ?? (yield* noKey())
})

/** Kinds of keys by their number in libp2p's protobuf form, where Ed25519 is 1. */
const otherTypes: Readonly<Record<number, string>> = { 0: "RSA", 2: "secp256k1", 3: "ECDSA" }

/**
 * The identity of `[32 seed][32 public key]`, the public key being the seed's. Older software wrote the public key
 * twice. Undefined when the bytes are anything else.
 */
function identityOf(data: Uint8Array): Identity["Service"] | undefined {
  if (data.byteLength !== 64 && data.byteLength !== 96) return undefined
  const identity = SeededIdentity.make(data.subarray(0, 32))
  // A saved key ends in the seed and its public key.
  const whole = Redacted.value(identity.privateKey).subarray(-64)
  return Buffer.from(data.subarray(0, 64)).equals(whole) ? identity : undefined
}

/**
 * The two fields of a key in libp2p's protobuf form, 1 the type and 2 the data, in any order and among others. Throws
 * when the bytes end within a field.
 */
function fieldsOf(bytes: Uint8Array): { readonly type: number | undefined; readonly data: Uint8Array } {
  let at = 0
  let type: number | undefined
  let data = new Uint8Array()
  const take = (count: number): Uint8Array => {
    if (count > bytes.byteLength - at) throw new RangeError(`byte ${at} begins a part that ends after the last byte`)
    at += count
    return bytes.subarray(at - count, at)
  }
  const varint = (): number => {
    let value = 0
    for (let digit = 0; digit < varintBytesMax; digit++) {
      const byte = take(1)[0]!
      value += (byte & 0x7f) * 128 ** digit
      if (byte < 0x80) return value
    }
    throw new RangeError(`byte ${at} continues a number of more than ${varintBytesMax} bytes`)
  }
  while (at < bytes.byteLength) {
    const tag = varint()
    const [field, wire] = [Math.floor(tag / 8), tag % 8]
    if (wire === 0) {
      const value = varint()
      if (field === 1) type = value
    } else if (wire === 2) {
      const value = take(varint())
      if (field === 2) data = new Uint8Array(value)
    } else if (wire === 1 || wire === 5) take(wire === 1 ? 8 : 4)
    else throw new RangeError(`the field before byte ${at} has the unknown wire type ${wire}`)
  }
  return { type, data }
}

const varintBytesMax = 10

const create = Effect.fnUntraced(function*(file: string) {
  const path = yield* Path.Path
  const directory = path.dirname(file)
  const identity = generate()
  const problem = yield* Directory.make(directory).pipe(
    Effect.andThen(Directory.problemOf(directory)),
    Effect.mapError(failed(file, "cannot be written"))
  )
  if (problem !== undefined) return yield* new IdentityError({ path: directory, detail: problem })
  yield* write(file, identity)
  return identity
})

const write = Effect.fnUntraced(function*(file: string, { privateKey }: Identity["Service"]) {
  const fs = yield* FileSystem.FileSystem
  const temporary = `${file}.${process.pid}.tmp`
  // A crash may have left part of a key.
  yield* fs.remove(temporary, { force: true }).pipe(
    Effect.andThen(AtomicFile.write(file, Redacted.value(privateKey), { temporary, flag: "wx" })),
    Effect.mapError(failed(file, "cannot be written"))
  )
})

/**
 * Writes the key again when its file has gone, once the directory is there: `DataDirectory` makes that anew, and holds
 * its lock then. Otherwise the node would be another peer after its next start.
 */
const keep = Effect.fnUntraced(function*(directory: string, identity: Identity["Service"]) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const root = path.resolve(directory)
  const file = path.join(root, fileName)
  const restore = Effect.gen(function*() {
    if ((yield* fs.exists(file)) || !(yield* fs.exists(root))) return
    yield* write(file, identity)
    yield* Effect.logWarning(`the key ${file} was removed while in use, and is written again`)
  }).pipe(
    Effect.catch((error) => Effect.logDebug(`the key ${file} cannot be looked for or written: ${error.message}`)),
    Effect.annotateLogs({ component: "identity" })
  )
  yield* Supervised.forever("the watch over the key", Effect.delay(restore, DataDirectory.checkInterval))
})
