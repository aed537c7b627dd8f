/**
 * The headers of `/codio/1.0.0`: one request from the opener of a stream, one response from the other side, whatever
 * bytes follow.
 *
 * On the wire each header is `[uvarint length][length bytes of CBOR]`, at most {@link headerBytesMax} bytes of CBOR,
 * which is a map with text keys, nested at most {@link headerDepthMax} deep. A request has `op`, a response has `ok`.
 * Unknown keys are ignored, so that later versions may add some.
 *
 * | op | fields | response | then |
 * |---|---|---|---|
 * | `hello` | `agent` | `agent` | both sides close |
 * | `keep` | none | `ok` | the stream stays open while the opener keeps the peer, which is then not idle |
 * | `retire` | none | `ok`, or the code `in-use` | the opener closes the connection when its streams have ended |
 * | `goodbye` | `reason` | `ok` | the sender closes the connection |
 */
import { decode as decodeCbor, encode as encodeCbor, Tokenizer, Type } from "cborg"
import { Result, Schema, SchemaIssue } from "effect"
import { varint } from "multiformats"
import { MessageError } from "./NetworkError.ts"
import { GoodbyeReason } from "./NetworkEvent.ts"
import type { ProtocolId } from "./Peer.ts"

/** The protocol's id. */
export const protocol = "/codio/1.0.0" as ProtocolId

/** Bytes of CBOR in a header, without the length before it. 1 KiB: a header names things, it does not carry them. */
export const headerBytesMax = 1024

/** Bytes before the CBOR of a header, at most. Three hold every length up to 2 MiB, so a fourth is padding. */
export const prefixBytesMax = 3

/**
 * How deep maps, arrays and tags of a header may be nested; the header's own map is the first level. A decoder spends
 * microseconds on each level, so a stranger must not choose their number.
 */
export const headerDepthMax = 4

/** What a stream's opener asks. */
export const CodioRequest = Schema.Union([
  Schema.Struct({ op: Schema.Literal("hello"), agent: Schema.String }),
  Schema.Struct({ op: Schema.Literal("keep") }),
  Schema.Struct({ op: Schema.Literal("retire") }),
  Schema.Struct({ op: Schema.Literal("goodbye"), reason: GoodbyeReason })
])
export type CodioRequest = typeof CodioRequest.Type

/** What the other side answers. `code` is `malformed` or `too-large`, and `in-use` for `retire`. */
export const CodioResponse = Schema.Union([
  Schema.Struct({ ok: Schema.Literal(true), agent: Schema.optionalKey(Schema.String) }),
  Schema.Struct({ ok: Schema.Literal(false), code: Schema.String, message: Schema.optionalKey(Schema.String) })
])
export type CodioResponse = typeof CodioResponse.Type

/** The bytes of a request. */
export const encodeRequest = (request: CodioRequest): Uint8Array => frame(request)

/** The bytes of a response. */
export const encodeResponse = (response: CodioResponse): Uint8Array => frame(response)

/** A header at the start of some bytes, and the bytes after it. */
export interface Decoded<A> {
  readonly header: A
  readonly rest: Uint8Array
}

/**
 * Reads a request. Fails for a length over the limit, CBOR that does not decode, and an `op` or field that is not
 * known.
 */
export const decodeRequest = (bytes: Uint8Array): Result.Result<Decoded<CodioRequest> | undefined, MessageError> =>
  unframe(bytes, requestOf)

/** Reads a response; fails as {@link decodeRequest} does. */
export const decodeResponse = (bytes: Uint8Array): Result.Result<Decoded<CodioResponse> | undefined, MessageError> =>
  unframe(bytes, responseOf)

/**
 * The length of the header at the start of some bytes, with its prefix. Undefined while the prefix is incomplete. Means
 * nothing for bytes that do not decode.
 */
export const headerLength = (bytes: Uint8Array): number | undefined => {
  const end = bytes.findIndex((byte) => byte < 0x80)
  if (end === -1 || end >= prefixBytesMax) return undefined
  return bytes.subarray(0, end + 1).reduce((length, byte, index) => length + ((byte & 0x7f) << (7 * index)), end + 1)
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const requestOf = Schema.decodeUnknownResult(CodioRequest)
const responseOf = Schema.decodeUnknownResult(CodioResponse)
const formatIssue = SchemaIssue.makeFormatterDefault()

const malformed = (detail: string) => Result.fail(new MessageError({ reason: { _tag: "Malformed", detail } }))

function frame(header: CodioRequest | CodioResponse): Uint8Array {
  const body = encodeCbor(header)
  const prefix = varint.encodingLength(body.length)
  const out = new Uint8Array(prefix + body.length)
  varint.encodeTo(body.length, out)
  out.set(body, prefix)
  return out
}

/** Counts the levels that are open at each token of CBOR, and throws at the first one below {@link headerDepthMax}. */
class ShallowTokenizer extends Tokenizer {
  // The values that each open map, array and tag still waits for.
  readonly #open: Array<number> = []

  override next() {
    const token = super.next()
    const open = this.#open
    const { type } = token
    if (Type.equals(type, Type.break)) open.pop()
    else if (open.length > 0) open[open.length - 1]!--
    if (Type.equals(type, Type.array)) open.push(token.value as number)
    else if (Type.equals(type, Type.map)) open.push(2 * (token.value as number))
    else if (Type.equals(type, Type.tag)) open.push(1)
    if (open.length > headerDepthMax) throw new Error(`nested deeper than ${headerDepthMax} levels`)
    while (open.length > 0 && open[open.length - 1]! <= 0) open.pop()
    return token
  }
}

function unframe<A>(
  bytes: Uint8Array,
  decodeHeader: (input: unknown) => Result.Result<A, Schema.SchemaError>
): Result.Result<Decoded<A> | undefined, MessageError> {
  const end = bytes.findIndex((byte) => byte < 0x80)
  if (end === -1 || end >= prefixBytesMax) {
    return bytes.length < prefixBytesMax ? Result.succeed(undefined) : malformed("the length does not end")
  }
  // A length has one spelling only; multiformats throws for the others.
  if (end > 0 && bytes[end] === 0) return malformed("the length has bytes that say nothing")
  const [length, prefix] = varint.decode(bytes)
  if (length > headerBytesMax) {
    return Result.fail(new MessageError({ reason: { _tag: "TooLarge", bytes: length, limit: headerBytesMax } }))
  }
  if (bytes.length < prefix + length) return Result.succeed(undefined)
  let value: unknown
  try {
    const body = bytes.subarray(prefix, prefix + length)
    value = decodeCbor(body, { tokenizer: new ShallowTokenizer(body) })
  } catch (cause) {
    return malformed((cause as Error).message)
  }
  const header = decodeHeader(value)
  if (Result.isFailure(header)) return malformed(formatIssue(header.failure.issue))
  return Result.succeed({ header: header.success, rest: bytes.subarray(prefix + length) })
}
