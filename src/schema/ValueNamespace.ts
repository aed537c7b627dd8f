/**
 * Namespaces of values in the DHT: what their values are, the paths under which a value may be stored, and which of two
 * values wins.
 *
 * A value is stored under the key `/<namespace>/<path>`. Every node that stores or reads it checks it by the rules of
 * its namespace, so a namespace means the same on all of them; a node refuses values of a namespace it does not know.
 */
import { Effect, type Order, Predicate, type Redacted, Schema, SchemaIssue, SchemaTransformation } from "effect"
import { shortened } from "./Canonical.ts"
import { RecordInvalid } from "./NetworkError.ts"
import type { PeerId } from "./Peer.ts"

/**
 * How many bytes a value may have as it is stored. 8 KiB: Rust reads no message above 16 KiB, and the answer to a
 * lookup names up to twenty peers beside the value.
 */
export const valueBytesMax = 8 * 1024

/** How many bytes a key may have, slashes and namespace included. */
export const valueKeyBytesMax = 255

/**
 * What a node needs to know of a namespace to store values of others.
 */
export interface ValueRules {
  readonly name: string
  /** Fails unless the bytes are a value of this namespace that may be stored under the path. */
  readonly check: (path: string, bytes: Uint8Array) => Effect.Effect<void, RecordInvalid>
  /** Whether the first value wins over the second. Both have passed `check`. Neither of two equal values wins. */
  readonly replaces: (path: string, bytes: Uint8Array, other: Uint8Array) => Effect.Effect<boolean, RecordInvalid>
}

/**
 * A namespace: values of type `A`, made from an `Input`. The two are the same unless `seal` adds something, such as a
 * signature.
 */
export interface ValueNamespace<in out A, in Input = A> extends ValueRules {
  /** The value in some bytes that are stored under the path. */
  readonly decode: (path: string, bytes: Uint8Array) => Effect.Effect<A, RecordInvalid>
  /** The bytes to store under the path. */
  readonly seal: (path: string, input: Input, context: SealContext<A>) => Effect.Effect<Uint8Array, RecordInvalid>
}

/** What `seal` may use besides the input. */
export interface SealContext<out A> {
  readonly signer: Signer
  /** The value that this node has stored under the path. */
  readonly previous: A | undefined
}

/** The node that puts a value. An `Identity` is a signer. */
export interface Signer {
  readonly peerId: PeerId
  /** In libp2p's protobuf form. */
  readonly privateKey: Redacted.Redacted<Uint8Array>
}

/** What makes a namespace: its name, the form of its values, and which of two is newer. */
export interface ValueNamespaceOptions<A> {
  /** The first part of the key, without slashes. */
  readonly name: string
  /**
   * What a value is. Every node checks values by decoding them, so decoding should fail for bytes that are no value.
   */
  readonly schema: Schema.Codec<A, Uint8Array>
  /** The greater value wins. */
  readonly order: Order.Order<A>
  /** Whether a value may be stored under a path. Defaults to every value under every path. */
  readonly belongs?: ((path: string, value: A) => boolean) | undefined
}

/**
 * A namespace of plain values. Anybody who knows a path can put a value there, and the greatest wins. Throws a
 * {@link RecordInvalid} for options that make no namespace.
 *
 * ```ts
 * const Scores = ValueNamespace.make({
 *   name: "scores",
 *   schema: ValueNamespace.fromJson(Schema.Struct({ points: Schema.Int })),
 *   order: Order.mapInput(Order.Number, ({ points }) => points)
 * })
 * ```
 */
export const make = <A>(options: ValueNamespaceOptions<A>): ValueNamespace<A> => {
  assertOptions(options)
  const encode = Schema.encodeEffect(options.schema)
  return makeSealed<A, A>({
    ...options,
    seal: (path, value) => Effect.mapError(encode(value), invalid(`/${options.name}/${path}: no value to store`))
  })
}

/**
 * A namespace whose values are made from an input, such as signed values. Throws as {@link make} does.
 */
export const makeSealed = <A, Input>(
  options: ValueNamespaceOptions<A> & Pick<ValueNamespace<A, Input>, "seal">
): ValueNamespace<A, Input> => {
  assertOptions(options)
  const { belongs, name, order, schema, seal } = options
  const read = Schema.decodeEffect(schema)
  const decode = Effect.fnUntraced(function*(path: string, bytes: Uint8Array) {
    if (bytes.length > valueBytesMax) {
      return yield* new RecordInvalid({
        detail: `/${name}/${path}: ${bytes.length} bytes are over the limit of ${valueBytesMax}`
      })
    }
    const value = yield* Effect.mapError(read(bytes), invalid(`/${name}/${path}: no value of the namespace`))
    if (belongs?.(path, value) === false) {
      return yield* new RecordInvalid({ detail: `/${name}/${path}: the value belongs under another key` })
    }
    return value
  })
  return {
    name,
    decode,
    seal,
    check: (path, bytes) => Effect.asVoid(decode(path, bytes)),
    replaces: (path, bytes, other) =>
      Effect.zipWith(decode(path, bytes), decode(path, other), (value, than) => order(value, than) > 0)
  }
}

/**
 * A schema of bytes that hold JSON of another schema.
 */
export const fromJson = <A, I>(schema: Schema.Codec<A, I>): Schema.Codec<A, Uint8Array> => {
  if (!Schema.isSchema(schema)) {
    throw new RecordInvalid({ detail: `expected a Schema of the values, got ${shortened(schema)}` })
  }
  return Schema.Uint8Array.pipe(
    Schema.decodeTo(
      Schema.String,
      SchemaTransformation.transformEffect({
        decode: (bytes, options) =>
          Effect.try({
            try: () => utf8.decode(bytes),
            catch: () => new SchemaIssue.InvalidValue({ message: "expected UTF-8" }, bytes, options)
          }),
        encode: (text) => Effect.succeed(new TextEncoder().encode(text))
      })
    ),
    Schema.decodeTo(Schema.fromJsonString(schema))
  )
}

/** The bytes of the key `/<namespace>/<path>`. Fails for a path that is empty or too long. */
export const keyBytes = (namespace: string, path: string): Effect.Effect<Uint8Array, RecordInvalid> => {
  const bytes = new TextEncoder().encode(`/${namespace}/${path}`)
  return path === "" || bytes.length > valueKeyBytesMax
    ? Effect.fail(
      new RecordInvalid({
        detail: path === ""
          ? `/${namespace}/: a path is missing`
          : `/${namespace}/...: ${bytes.length} bytes are over a key's limit of ${valueKeyBytesMax}`
      })
    )
    : Effect.succeed(bytes)
}

/** The path in a key of the namespace; undefined for a key of another one. */
export const pathOf = (namespace: string, key: Uint8Array): string | undefined => {
  const prefix = `/${namespace}/`
  try {
    const text = utf8.decode(key)
    return key.length <= valueKeyBytesMax && text.startsWith(prefix) && text.length > prefix.length
      ? text.slice(prefix.length)
      : undefined
  } catch {
    return undefined
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

const invalid = (what: string) => (cause: Schema.SchemaError) =>
  new RecordInvalid({ detail: `${what}: ${cause.message.replace(/\s+/g, " ")}`, cause })

/** A namespace is made once, when its module loads, so what is wrong with it is thrown. */
function assertOptions(options: unknown): void {
  if (!Predicate.isReadonlyObject(options)) {
    throw new RecordInvalid({ detail: `expected a namespace's name, schema and order, got ${shortened(options)}` })
  }
  const { belongs, name, order, schema } = options
  if (typeof name !== "string" || !/^[^/\s]+$/.test(name)) {
    const detail = `${JSON.stringify(shortened(name))} cannot name a namespace: expected text without slash and space`
    throw new RecordInvalid({ detail })
  }
  const problem = !Schema.isSchema(schema)
    ? `schema: expected a Schema of the values in bytes, got ${shortened(schema)}`
    : typeof order !== "function"
    ? `order: expected an Order of the values, got ${shortened(order)}`
    : belongs !== undefined && typeof belongs !== "function"
    ? `belongs: expected a function of a path and a value, got ${shortened(belongs)}`
    : undefined
  if (problem !== undefined) throw new RecordInvalid({ detail: `namespace ${name}: ${problem}` })
}
