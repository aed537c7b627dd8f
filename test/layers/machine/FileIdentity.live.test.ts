import { NodeFileSystem, NodePath } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import {
  generateKeyPair,
  generateKeyPairFromSeed,
  privateKeyFromProtobuf,
  privateKeyToProtobuf
} from "@libp2p/crypto/keys"
import { peerIdFromPrivateKey } from "@libp2p/peer-id"
import { Effect, FileSystem, Layer, Path, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { randomBytes } from "node:crypto"
import { inspect } from "node:util"
import * as DataDirectory from "../../../src/layers/machine/DataDirectory.ts"
import * as FileIdentity from "../../../src/layers/machine/FileIdentity.ts"
import { Identity } from "../../../src/services/Identity.ts"
import { NetworkConfig } from "../../../src/services/NetworkConfig.ts"
import { eventually } from "../../contract/eventually.ts"
import * as LogLines from "../../support/LogLines.ts"

const platform = Layer.mergeAll(NodeFileSystem.layer, NodePath.layer)

/** A directory, the file that the identity would take in it, and the file system. */
const setUp = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const parent = yield* fs.makeTempDirectoryScoped()
  const directory = path.join(parent, "data")
  return { fs, directory, file: path.join(directory, "identity.key") }
})

const refused = (bytes: Uint8Array, mode = 0o600) =>
  Effect.gen(function*() {
    const { directory, file, fs } = yield* setUp
    yield* fs.makeDirectory(directory)
    yield* fs.writeFile(file, bytes)
    yield* fs.chmod(file, mode)
    const error = yield* Effect.flip(FileIdentity.make(directory))
    assert.strictEqual(error.path, file)
    assert.notInclude(error.message, "\n")
    // It is never replaced.
    assert.deepStrictEqual(yield* fs.readFile(file), new Uint8Array(bytes))
    return { message: error.message.replaceAll(file, "<file>"), directory, file, fs }
  }).pipe(Effect.provide(platform))

describe("FileIdentity", () => {
  it.live("makes a key once, in a file that only its owner reads, and leaves nothing else", () =>
    Effect.gen(function*() {
      const { directory, file, fs } = yield* setUp
      const first = yield* FileIdentity.make(directory)
      assert.deepStrictEqual(yield* fs.readDirectory(directory), ["identity.key"])
      assert.strictEqual((yield* fs.stat(file)).mode & 0o777, 0o600)
      assert.strictEqual((yield* fs.stat(directory)).mode & 0o777, 0o700)
      const again = yield* FileIdentity.make(directory)
      assert.strictEqual(again.peerId, first.peerId)
      assert.deepStrictEqual(Redacted.value(again.privateKey), Redacted.value(first.privateKey))

      const bytes = yield* fs.readFile(file)
      assert.strictEqual(bytes.byteLength, 68)
      const key = privateKeyFromProtobuf(bytes)
      assert.strictEqual(key.type, "Ed25519")
      assert.strictEqual(peerIdFromPrivateKey(key).toString(), first.peerId)
    }).pipe(Effect.provide(platform)))

  it.live("is the identity that libp2p reads from the same bytes, and writes the same bytes", () =>
    Effect.gen(function*() {
      const { directory, file, fs } = yield* setUp
      yield* fs.makeDirectory(directory)
      for (let round = 0; round < 50; round++) {
        const key = yield* Effect.promise(() => generateKeyPairFromSeed("Ed25519", randomBytes(32)))
        const bytes = privateKeyToProtobuf(key)
        // Older software wrote the public key twice.
        const older = Uint8Array.of(...bytes, ...bytes.subarray(36))
        older[3] = 0x60
        assert.strictEqual(privateKeyFromProtobuf(older).type, "Ed25519")
        for (const written of [bytes, older]) {
          yield* fs.writeFile(file, written, { mode: 0o600 })
          const identity = yield* FileIdentity.make(directory)
          assert.strictEqual(identity.peerId, peerIdFromPrivateKey(key).toString())
          assert.deepStrictEqual(Redacted.value(identity.privateKey), bytes)
        }
        yield* fs.remove(file)
        const made = yield* FileIdentity.make(directory)
        const read = privateKeyFromProtobuf(yield* fs.readFile(file))
        assert.strictEqual(made.peerId, peerIdFromPrivateKey(read).toString())
        assert.deepStrictEqual(new Uint8Array(yield* fs.readFile(file)), privateKeyToProtobuf(read))
        assert.isTrue(yield* Effect.promise(async () => read.publicKey.verify(bytes, await read.sign(bytes))))
      }
    }).pipe(Effect.provide(platform)))

  it.live("reads every protobuf form of a key, and none with another public key", () =>
    Effect.gen(function*() {
      const { directory, file, fs } = yield* setUp
      yield* fs.makeDirectory(directory)
      const key = yield* Effect.promise(() => generateKeyPair("Ed25519"))
      const bytes = privateKeyToProtobuf(key)
      const [type, data] = [bytes.subarray(0, 2), bytes.subarray(2)]
      const forms = {
        "the data before the type": [...data, ...type],
        "a number that is not known": [...bytes, 0x18, 1],
        "bytes that are not known": [0x22, 2, 7, 7, ...bytes],
        "fixed numbers that are not known": [0x1d, 1, 2, 3, 4, ...bytes, 0x19, 1, 2, 3, 4, 5, 6, 7, 8],
        "a padded type": [8, 0x81, 0, ...data],
        "another second copy of the public key": [8, 1, 0x12, 0x60, ...bytes.subarray(4), ...new Uint8Array(32)]
      }
      for (const [name, form] of Object.entries(forms)) {
        yield* fs.writeFile(file, Uint8Array.from(form), { mode: 0o600 })
        const identity = yield* FileIdentity.make(directory)
        assert.strictEqual(identity.peerId, peerIdFromPrivateKey(key).toString(), name)
        assert.deepStrictEqual(Redacted.value(identity.privateKey), bytes, name)
        const wrong = Uint8Array.from(form)
        wrong[Buffer.from(wrong).indexOf(key.publicKey.raw)]! ^= 1
        yield* fs.writeFile(file, wrong, { mode: 0o600 })
        assert.include((yield* Effect.flip(FileIdentity.make(directory))).message, "are no private key", name)
      }
    }).pipe(Effect.provide(platform)))

  it.live("says of a truncated key of another kind that it is damaged, and where", () =>
    Effect.gen(function*() {
      const { directory, file, fs } = yield* setUp
      yield* fs.makeDirectory(directory)
      const rsa = privateKeyToProtobuf(yield* Effect.promise(() => generateKeyPair("RSA", 2048)))
      for (const bytes of [rsa.subarray(0, 100), Uint8Array.of(8), new Uint8Array(20).fill(0xff)]) {
        yield* fs.writeFile(file, bytes, { mode: 0o600 })
        const error = yield* Effect.flip(FileIdentity.make(directory))
        assert.include(error.message, `is damaged: its ${bytes.byteLength} bytes are no private key`)
        assert.instanceOf(error.cause, RangeError)
      }
      yield* fs.writeFile(file, rsa, { mode: 0o600 })
      assert.include((yield* Effect.flip(FileIdentity.make(directory))).message, "holds a key of type RSA")
    }).pipe(Effect.provide(platform)))

  it.live("removes what a crash in the middle of writing left", () =>
    Effect.gen(function*() {
      const { directory, file, fs } = yield* setUp
      yield* fs.makeDirectory(directory)
      yield* fs.writeFileString(`${file}.${process.pid}.tmp`, "half a key")
      yield* FileIdentity.make(directory)
      assert.deepStrictEqual(yield* fs.readDirectory(directory), ["identity.key"])
    }).pipe(Effect.provide(platform)))

  it.live("refuses a file that others may read, and says how to close it", () =>
    Effect.gen(function*() {
      const key = privateKeyToProtobuf(yield* Effect.promise(() => generateKeyPair("Ed25519")))
      for (const mode of [0o640, 0o604, 0o620]) {
        const { directory, file, fs, message } = yield* refused(key, mode)
        assert.strictEqual(
          message,
          `identity <file>: others may read the private key (mode 0${mode.toString(8)}); run: chmod 600 <file>`
        )
        yield* fs.makeDirectory(directory, { recursive: true })
        yield* fs.writeFile(file, key)
        yield* fs.chmod(file, 0o600)
        yield* FileIdentity.make(directory)
      }
    }).pipe(Effect.provide(platform)))

  it.live("refuses a file that is damaged or holds another kind of key, and says what to do", () =>
    Effect.gen(function*() {
      const key = privateKeyToProtobuf(yield* Effect.promise(() => generateKeyPair("Ed25519")))
      const other = privateKeyToProtobuf(yield* Effect.promise(() => generateKeyPair("secp256k1")))
      const damaged = [
        new Uint8Array(),
        key.subarray(0, 40),
        key.subarray(0, 67),
        new Uint8Array(68),
        new TextEncoder().encode("not a key")
      ]
      for (const bytes of damaged) {
        const { message } = yield* refused(bytes)
        assert.strictEqual(
          message,
          `identity <file>: is damaged: its ${bytes.byteLength} bytes are no private key; restore it from a backup, or remove it to start as another peer`
        )
      }
      assert.include((yield* refused(new Uint8Array(100_000))).message, "is damaged: 100000 bytes are no key")
      assert.include((yield* refused(other)).message, "holds a key of type secp256k1, and only Ed25519 is used here")
      for (const at of [3, 20, 50]) {
        const flipped = key.slice()
        flipped[at]! ^= 1
        assert.include((yield* refused(flipped)).message, "is damaged")
      }
    }))

  it.live("reports a directory that cannot be made", () =>
    Effect.gen(function*() {
      const { directory, fs } = yield* setUp
      yield* fs.writeFileString(directory, "a file of its name")
      const error = yield* Effect.flip(FileIdentity.make(directory))
      assert.include(error.message, "cannot be")
    }).pipe(Effect.provide(platform)))

  it.live("is ephemeral without a data directory, and shows no key when printed", () =>
    Effect.gen(function*() {
      const build = Effect.scoped(Effect.map(
        Layer.build(Layer.fresh(FileIdentity.layer).pipe(Layer.provide([platform, NetworkConfig.layer()]))),
        (context) => context
      ))
      const [first, second] = yield* Effect.all(
        [build, build].map((built) => Effect.flatMap(built, (context) => Effect.provide(Identity, context)))
      )
      assert.notStrictEqual(first!.peerId, second!.peerId)
      const secret = Buffer.from(Redacted.value(first!.privateKey))
      for (const shown of [inspect(first, { depth: 9 }), JSON.stringify(first)]) {
        assert.notInclude(shown, secret.toString("hex"))
        assert.notInclude(shown, secret.toString("base64"))
        assert.notInclude(shown, [...secret.subarray(0, 8)].join(","))
        assert.include(shown, "redacted")
      }
    }))

  it.effect("writes the same key again when its directory is removed while in use", () =>
    Effect.gen(function*() {
      const { directory, file, fs } = yield* setUp
      yield* Effect.gen(function*() {
        const { peerId, privateKey } = yield* Identity
        yield* fs.remove(directory, { recursive: true })
        // First the directory is made anew, then the key, since whoever writes there holds the lock.
        yield* TestClock.adjust(DataDirectory.checkInterval)
        yield* TestClock.withLive(eventually("the directory", fs.exists(directory)))
        yield* TestClock.adjust(DataDirectory.checkInterval)
        yield* TestClock.withLive(eventually("the key", fs.exists(file)))
        assert.deepStrictEqual(yield* fs.readFile(file), new Uint8Array(Redacted.value(privateKey)))
        assert.strictEqual((yield* fs.stat(file)).mode & 0o777, 0o600)
        assert.strictEqual((yield* FileIdentity.make(directory)).peerId, peerId)
      }).pipe(
        Effect.provide(Layer.provide(
          Layer.merge(FileIdentity.layer, DataDirectory.layer),
          NetworkConfig.layer({ dataDirectory: directory })
        ))
      )
    }).pipe(Effect.provide(platform), LogLines.capture))

  it.live("refuses to make a key where other users may write", () =>
    Effect.gen(function*() {
      const { directory, fs } = yield* setUp
      yield* fs.makeDirectory(directory)
      yield* fs.chmod(directory, 0o777)
      const error = yield* Effect.flip(FileIdentity.make(directory))
      assert.strictEqual(
        error.message,
        `identity ${directory}: others may write to it (mode 0777); run: chmod 700 ${directory}`
      )
      assert.deepStrictEqual(yield* fs.readDirectory(directory), [])
    }).pipe(Effect.provide(platform)))
})
