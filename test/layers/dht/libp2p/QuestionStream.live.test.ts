import { yamux } from "@chainsafe/libp2p-yamux"
import { assert, describe, it } from "@effect/vitest"
import { multiaddrConnectionPair } from "@libp2p/utils"
import { encodeFrame, MessageType } from "../../../../src/layers/dht/wire/Message.ts"
import * as QuestionStream from "../../../../src/layers/dht/libp2p/QuestionStream.ts"

const question = { type: MessageType.PING }
const frame = encodeFrame(question)

describe("QuestionStream", () => {
  it("takes an answer that comes with the end of the remote's half", async () => {
    const { answers, ends, kad, stream } = await open()
    assert.isTrue(kad.write(frame, question, true))
    // As yamux does with a frame that has both.
    stream.onRemoteCloseWrite()
    stream.onData(frame)
    assert.isFalse(kad.isOpen())
    await new Promise((resolve) => setImmediate(resolve))
    assert.deepStrictEqual([answers.length, ends.length], [1, 1])
    assert.deepStrictEqual(ends[0]!.unanswered, [])
  })

  it("ends with the questions that have no answer, once, and takes nothing after that", async () => {
    const { answers, ends, kad, stream } = await open()
    const others = [1, 2, 3].map(() => ({ ...question }))
    for (const other of others) kad.write(frame, other, true)
    kad.write(frame, { ...question }, false)
    stream.onData(frame)
    // Neither a question nor of a length.
    stream.onData(Uint8Array.of(1, 0xff))
    stream.onData(frame)
    kad.fail({ reason: "Reset", cause: new Error("again") })
    assert.lengthOf(answers, 1)
    assert.deepStrictEqual(ends.map(({ end, unanswered }) => [end.reason, unanswered]), [[
      "Malformed",
      others.slice(1)
    ]])
    assert.strictEqual(stream.status, "aborted")
  })

  it("tells of the question whose write fails, also of one without an answer", async () => {
    const { ends, kad, stream } = await open()
    const [first, second] = [{ ...question }, { ...question }]
    kad.write(frame, first, true)
    stream.send = () => {
      throw new Error("no")
    }
    assert.isFalse(kad.write(frame, second, false))
    assert.deepStrictEqual(ends.map(({ unanswered }) => unanswered), [[first, second]])
  })

  it("closes in good order, and resets a stream whose remote does not", async () => {
    const { ends, kad, stream } = await open()
    await kad.close(1)
    assert.strictEqual(stream.status, "aborted")
    await kad.close(1)
    const other = await open()
    const closed = other.kad.close(60_000)
    other.stream.onRemoteCloseWrite()
    await closed
    assert.strictEqual(other.stream.status, "closed")
    assert.lengthOf([...ends, ...other.ends], 0)
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** What a stream's muxer calls. */
interface Muxed {
  readonly onData: (data: Uint8Array) => void
  readonly onRemoteCloseWrite: () => void
}

async function open() {
  const [outbound] = multiaddrConnectionPair()
  const muxed = await yamux()().createStreamMuxer(outbound).createStream({ protocol: "/test/1.0.0" })
  const stream = muxed as typeof muxed & Muxed
  const answers: Array<unknown> = []
  const ends: Array<{ readonly unanswered: ReadonlyArray<unknown>; readonly end: QuestionStream.StreamEnd }> = []
  const kad = QuestionStream.make<QuestionStream.Asked>(stream, {
    questionsMax: 64,
    onAnswer: (_, message) => answers.push(message),
    onRoom: () => {},
    onEnd: (unanswered, end) => ends.push({ unanswered, end })
  })
  return { answers, ends, kad, stream }
}
