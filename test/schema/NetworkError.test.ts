import { assert, describe, it } from "@effect/vitest"
import { Duration, Schema } from "effect"
import * as NetworkError from "../../src/schema/NetworkError.ts"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"

const {
  ChunkInvalid,
  ConfigError,
  DataDirectoryError,
  Denied,
  DhtError,
  DialedSelf,
  DhtOff,
  DialError,
  DialTimeout,
  HostError,
  IdentityError,
  InvalidAddress,
  InvalidContentKey,
  InvalidPeerId,
  LimitReached,
  MessageError,
  NetworkStartError,
  NoPeers,
  NotFound,
  PeerLimitExceeded,
  PeerNotConnected,
  PeerStoreError,
  PingError,
  PingTimeout,
  PingUnsupported,
  ProtocolError,
  ProtocolNotSupported,
  QueryFailed,
  QueryTimeout,
  QuorumFailed,
  RecordInvalid,
  Refused,
  StreamError,
  StreamFailed,
  StreamReset,
  StreamTimeout,
  TtlInvalid,
  UnexpectedPeer,
  Unreachable,
  WriteAfterEnd
} = NetworkError

const peer = SimNetwork.peerId("bob")
const target = "/ip4/192.0.2.1/tcp/4001"
const cause = new Error("the error below")

const dial = (reason: NetworkError.DialReason) => new DialError({ target, reason })
const stream = (reason: NetworkError.StreamReason) => new StreamError({ peer, protocol: "/app/1.0.0", reason })
const dht = (reason: NetworkError.DhtError["reason"]) => new DhtError({ operation: "findPeer", subject: peer, reason })
const ping = (reason: NetworkError.PingError["reason"]) => new PingError({ peer, reason })
const configError = new ConfigError({ problems: ["maxPeers: expected a whole number", "listenPort: taken"] })

/** Every error, what it says, and whether the same call may succeed later. */
const errors: ReadonlyArray<readonly [error: NetworkError.NetworkError, message: string, isRetryable: boolean]> = [
  [new InvalidPeerId({ detail: "\"bogus\" is not a peer id" }), "\"bogus\" is not a peer id", false],
  [new InvalidContentKey({ detail: "\"foo\" is not a CID" }), "\"foo\" is not a CID", false],
  [dial(new DialTimeout({ after: Duration.seconds(10) })), `dial ${target}: no answer within 10s`, true],
  [dial(new Unreachable({ detail: "connection refused", cause })), `dial ${target}: connection refused`, true],
  [
    dial(new Denied({ detail: "the peer is blocked by this node" })),
    `dial ${target}: the peer is blocked by this node`,
    true
  ],
  [
    dial(new Refused({ cause })),
    `dial ${target}: the remote refused the connection; it may be full or block this peer`,
    true
  ],
  [
    dial(new UnexpectedPeer({ expected: peer })),
    `dial ${target}: another peer than ${peer} answers there; check the /p2p part of the address`,
    false
  ],
  [dial(new DialedSelf()), `dial ${target}: the target is this node itself`, false],
  [dial(new InvalidAddress({ detail: "not a multiaddr" })), `dial ${target}: not a multiaddr`, false],
  [
    new PeerLimitExceeded({ peer, limit: 50 }),
    `no slot for ${peer}: all 50 are taken; raise maxPeers or disconnect a peer`,
    true
  ],
  [new PeerNotConnected({ peer }), `${peer} is not connected`, true],
  [
    stream(new StreamReset({ detail: "the remote reset the stream" })),
    `stream /app/1.0.0 with ${peer}: the remote reset the stream`,
    true
  ],
  [
    stream(new StreamTimeout({ after: Duration.seconds(3) })),
    `stream /app/1.0.0 with ${peer}: no progress within 3s`,
    true
  ],
  [
    stream(new LimitReached({})),
    `stream /app/1.0.0 with ${peer}: the relay's limit of bytes or time was reached; what was read is incomplete`,
    true
  ],
  [
    stream(new ProtocolNotSupported({ cause })),
    `stream /app/1.0.0 with ${peer}: the remote does not speak this protocol`,
    false
  ],
  [
    stream(new ChunkInvalid({ detail: "write: expected a Uint8Array, got 5" })),
    `stream /app/1.0.0 with ${peer}: write: expected a Uint8Array, got 5`,
    false
  ],
  [stream(new WriteAfterEnd()), `stream /app/1.0.0 with ${peer}: the write side is closed`, false],
  [
    new ProtocolError({ protocol: "/app/1.0.0", detail: "the id is taken" }),
    "protocol /app/1.0.0: the id is taken",
    false
  ],
  [
    new MessageError({ reason: { _tag: "Malformed", detail: "the length does not end" } }),
    "malformed message: the length does not end",
    false
  ],
  [
    new MessageError({ reason: { _tag: "TooLarge", bytes: 20_000, limit: 16_384 } }),
    "message of 20000 bytes is over the limit of 16384",
    false
  ],
  [
    new MessageError({ reason: { _tag: "Late", after: Duration.seconds(5) } }),
    "the message was not complete within 5s",
    true
  ],
  [ping(new PingTimeout({ after: Duration.millis(2_500) })), `ping ${peer}: no answer within 2s 500ms`, true],
  [ping(new PingUnsupported()), `ping ${peer}: the remote does not speak /ipfs/ping/1.0.0`, false],
  [ping(new StreamFailed({ detail: "not connected" })), `ping ${peer}: not connected`, true],
  [
    dht(new DhtOff()),
    `findPeer ${peer}: this node has no DHT; start it with the option dht set to server or client`,
    false
  ],
  [dht(new NoPeers()), `findPeer ${peer}: no peer of the DHT is known; connect to one first`, true],
  [dht(new QueryTimeout({ after: Duration.seconds(10) })), `findPeer ${peer}: the lookup did not end within 10s`, true],
  [dht(new NotFound({})), `findPeer ${peer}: no peer in reach has it`, true],
  [dht(new RecordInvalid({ detail: "the key is too long" })), `findPeer ${peer}: the key is too long`, false],
  [dht(new TtlInvalid({ ttl: "30s" })), `findPeer ${peer}: a ttl is between 1 minute and 24 hours, not 30s`, false],
  [
    dht(new QuorumFailed({ quorum: 3, asked: 5, acknowledged: 2 })),
    `findPeer ${peer}: 2 of 5 nodes asked, where 3 were needed`,
    true
  ],
  [dht(new QueryFailed({ detail: "the query broke", cause })), `findPeer ${peer}: the query broke`, true],
  [
    new NetworkStartError({ reason: configError }),
    "cannot start: invalid options: maxPeers: expected a whole number; listenPort: taken",
    false
  ],
  [
    new NetworkStartError({ reason: new HostError({ module: "tcp", detail: "port 4001 is in use" }) }),
    "cannot start: tcp: port 4001 is in use",
    true
  ],
  [
    new NetworkStartError({ reason: new IdentityError({ path: "/data/key", detail: "readable by others" }) }),
    "cannot start: identity /data/key: readable by others",
    false
  ],
  [
    new NetworkStartError({ reason: new DataDirectoryError({ path: "/data", detail: "in use by another process" }) }),
    "cannot start: data directory /data: in use by another process",
    false
  ],
  [
    new NetworkStartError({ reason: new PeerStoreError({ operation: "read", cause }) }),
    "cannot start: peer store: read failed: the error below; check that the data directory can be read and written",
    true
  ]
]

const AnyError = Schema.Union([
  InvalidPeerId,
  InvalidContentKey,
  DialError,
  PeerLimitExceeded,
  PeerNotConnected,
  StreamError,
  ProtocolError,
  MessageError,
  PingError,
  DhtError,
  NetworkStartError
])

/** The tags in an error and in its reasons. */
const tagsOf = (value: unknown): ReadonlyArray<string> =>
  typeof value === "object" && value !== null && "_tag" in value
    ? [String(value._tag), ...("reason" in value ? tagsOf(value.reason) : [])]
    : []

describe("NetworkError", () => {
  it("says what was attempted, on what, and why it failed", () => {
    for (const [error, message, isRetryable] of errors) {
      assert.strictEqual(error.message, message)
      assert.strictEqual(error.isRetryable, isRetryable, message)
      assert.instanceOf(error, Error)
    }
  })

  it("has no error and no reason that this specification leaves out", () => {
    const seen = new Set(errors.flatMap(([error]) => tagsOf(error)))
    const exported = Object.entries(NetworkError).flatMap(([name, value]) =>
      typeof value === "function" && "fields" in value ? [name] : []
    )
    assert.isAbove(exported.length, 30)
    assert.deepStrictEqual(exported.filter((name) => !seen.has(name)), [])
  })

  it("gives several failed dials one reason: a refusal, else the shared one, else what each says", () => {
    const { mergeDialReasons } = NetworkError
    const silent = new DialTimeout({ after: Duration.seconds(5) })
    const gone = new Unreachable({ detail: "connection refused" })
    const refused = new Refused({})
    assert.strictEqual(mergeDialReasons([gone, silent, refused], cause), refused)
    assert.strictEqual(mergeDialReasons([silent, silent], cause), silent)
    for (const reasons of [[gone, silent, gone], [silent, gone]]) {
      const merged = mergeDialReasons(reasons, cause)
      assert.strictEqual(merged._tag === "Unreachable" && merged.cause, cause)
      assert.sameMembers(merged.message.split("; "), ["connection refused", "no answer within 5s"])
    }
  })

  it("crosses a wire as JSON and is itself again", () => {
    const codec = Schema.toCodecJson(AnyError)
    for (const [error, message, isRetryable] of errors) {
      const text = JSON.stringify(Schema.encodeSync(codec)(error as typeof AnyError.Type))
      const back = Schema.decodeUnknownSync(codec)(JSON.parse(text))
      assert.strictEqual(back._tag, error._tag)
      assert.strictEqual(back.message, message)
      assert.strictEqual(back.isRetryable, isRetryable, message)
      assert.instanceOf(back, Error)
    }
  })
})
