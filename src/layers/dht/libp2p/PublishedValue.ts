/**
 * The namespace `/codio/<peer id>/<name>`: values that their publisher has signed, of which the newest wins. [libp2p]
 *
 * The publisher's id is part of the key, so a reader knows the publisher of the value, and nobody else can put one
 * there. A value travels as libp2p's signed envelope, which Rust and Go seal and open with their own libraries;
 * docs/PROTOCOL.md shows the bytes.
 */
import { privateKeyFromProtobuf } from "@libp2p/crypto/keys"
import { peerIdFromPublicKey } from "@libp2p/peer-id"
import { RecordEnvelope } from "@libp2p/peer-record"
import {
  Bytes,
  Clock,
  Effect,
  Order,
  Predicate,
  Redacted,
  Result,
  Schema,
  SchemaIssue,
  SchemaTransformation
} from "effect"
import { shortened } from "../../../schema/Canonical.ts"
import { RecordInvalid } from "../../../schema/NetworkError.ts"
import { PeerId, readPeerId } from "../../../schema/Peer.ts"
import { makeSealed, type ValueNamespace, type ValueRules } from "../../../schema/ValueNamespace.ts"
import { ValueNamespaces } from "../../../services/ValueNamespaces.ts"

/** The domain of the envelope's signature. */
export const domain = "codio-value"

/** The payload type of the envelope. */
export const payloadType = "/codio/value"

/**
 * A value as it was published.
 */
export class PublishedValue extends Schema.Class<PublishedValue>("codio-network/PublishedValue")({
  publisher: PeerId,
  /** The part of the key after the publisher. */
  name: Schema.String,
  /** Grows with every value of one key. This library takes the milliseconds since the epoch. */
  sequence: Schema.Int.check(Schema.isGreaterThanOrEqualTo(0)),
  value: Schema.Uint8Array,
  /** The signed envelope, as it is stored. */
  envelope: Schema.Uint8Array
}) {}

/** What is published. */
export interface PublishedInput {
  readonly value: Uint8Array
  /** Defaults to now in milliseconds, or one more than the last where that is later. */
  readonly sequence?: number | undefined
}

/**
 * The path of a peer's value. The publisher's id may be written in any form, as its CID for example. Throws a
 * `RecordInvalid` for what is no text.
 */
export const path = (publisher: string, name: string): string => {
  for (const [what, text] of Object.entries({ publisher, name })) {
    if (typeof text !== "string") {
      throw new RecordInvalid({ detail: `${what}: expected a text, got ${shortened(text)}` })
    }
  }
  return `${Result.getOrElse(readPeerId(publisher), () => publisher)}/${name}`
}

/**
 * Built into every node. `putValue` fails with `RecordInvalid` for a path of another peer than the one that puts.
 */
export const namespace: ValueNamespace<PublishedValue, PublishedInput> = makeSealed<PublishedValue, PublishedInput>({
  name: "codio",
  schema: Schema.suspend(() => Stored),
  // Two values of one sequence are the publisher's mistake; all nodes choose the same one.
  order: Order.combine(
    Order.mapInput(Order.Number, ({ sequence }: PublishedValue) => sequence),
    Order.mapInput(Order.Array(Order.Number), ({ envelope }: PublishedValue) => [...envelope])
  ),
  belongs: (under, { name, publisher }) => under === path(publisher, name),
  seal: Effect.fnUntraced(function*(under, input, { previous, signer }) {
    if (!Predicate.isReadonlyObject(input) || !Predicate.isUint8Array(input.value)) {
      const given = Predicate.isReadonlyObject(input) ? input.value : input
      return yield* new RecordInvalid({
        detail: `expected an object with a value that is a Uint8Array, got ${shortened(given)}`
      })
    }
    const { sequence, value } = input
    const at = sequence ?? Math.max(yield* Clock.currentTimeMillis, (previous?.sequence ?? -1) + 1)
    if (!Number.isSafeInteger(at) || at < 0) {
      return yield* new RecordInvalid({
        detail: `/codio/${under}: ${shortened(at)} is no sequence; expected a whole number`
      })
    }
    const record = {
      domain,
      codec: new TextEncoder().encode(payloadType),
      marshal: () => payload(`/codio/${under}`, at, value),
      equals: () => false
    }
    return yield* Effect.tryPromise({
      try: async () =>
        (await RecordEnvelope.seal(record, privateKeyFromProtobuf(Redacted.value(signer.privateKey)))).marshal(),
      catch: (cause) => new RecordInvalid({ detail: `/codio/${under}: the value cannot be signed`, cause })
    })
  })
})

/** This namespace, and those of the application: what a node stores values of. */
export const namespaces: Effect.Effect<ReadonlyArray<ValueRules>> = Effect.map(
  ValueNamespaces,
  (others) => [namespace, ...others]
)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** `[8 bytes sequence, big-endian][2 bytes length of the key, big-endian][key][value]` */
function payload(key: string, sequence: number, value: Uint8Array): Uint8Array {
  const name = new TextEncoder().encode(key)
  const bytes = new Uint8Array(10 + name.length + value.length)
  const view = new DataView(bytes.buffer)
  view.setBigUint64(0, BigInt(sequence))
  view.setUint16(8, name.length)
  bytes.set(name, 10)
  bytes.set(value, 10 + name.length)
  return bytes
}

const Stored: Schema.Codec<PublishedValue, Uint8Array> = Schema.Uint8Array.pipe(
  Schema.decodeTo(
    Schema.toType(PublishedValue),
    SchemaTransformation.transformEffect({
      decode: (bytes, options) =>
        Effect.tryPromise({
          try: () => open(bytes),
          catch: (cause) =>
            new SchemaIssue.InvalidValue(
              { message: cause instanceof Error ? cause.message : String(cause) },
              bytes,
              options
            )
        }),
      encode: ({ envelope }) => Effect.succeed(envelope)
    })
  )
)

async function open(bytes: Uint8Array): Promise<PublishedValue> {
  const envelope = await RecordEnvelope.openAndCertify(bytes, domain)
  // Two copies of a value should be the same bytes, but protobuf has many forms of one message and the signature does
  // not cover the form.
  if (!Bytes.Equivalence(envelope.marshal(), bytes)) throw new Error("an envelope that is not in its canonical form")
  const type = new TextDecoder().decode(envelope.payloadType)
  if (type !== payloadType) throw new Error(`a payload of type ${type}; expected ${payloadType}`)
  const view = new DataView(envelope.payload.buffer, envelope.payload.byteOffset, envelope.payload.byteLength)
  const end = 10 + view.getUint16(8)
  if (end > envelope.payload.length) throw new Error("a payload that ends within its key")
  const key = new TextDecoder("utf-8", { fatal: true }).decode(envelope.payload.subarray(10, end))
  const publisher = peerIdFromPublicKey(envelope.publicKey).toString() as PeerId
  const prefix = `/codio/${publisher}/`
  if (!key.startsWith(prefix) || key.length === prefix.length) {
    throw new Error(`a value of ${publisher} for the key ${key}; expected ${prefix}<name>`)
  }
  return new PublishedValue({
    publisher,
    name: key.slice(prefix.length),
    sequence: Number(view.getBigUint64(0)),
    value: envelope.payload.slice(end),
    envelope: bytes
  })
}
