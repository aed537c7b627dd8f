import { yamux } from "@chainsafe/libp2p-yamux"
import { assert, describe, it } from "@effect/vitest"
import type { Stream } from "@libp2p/interface"
import { multiaddrConnectionPair } from "@libp2p/utils"
import { eager } from "../../../../src/layers/libp2p/wire/EagerStreams.ts"
import { changed } from "../../../../src/layers/libp2p/wire/Yamux.ts"

const protocol = "/test/1.0.0"
const lines = Buffer.from(`\x13/multistream/1.0.0\n\x0c${protocol}\n`)

describe("an eager stream", () => {
  it("is open at once, and proposes its protocol as libp2p does", async () => {
    const { opened, remote } = await open()
    assert.strictEqual(opened.protocol, protocol)
    assert.deepStrictEqual(await taken(remote, lines.byteLength), lines)
  })

  it("gives what follows the remote's agreement, wherever that is cut", async () => {
    for (let cut = 0; cut <= lines.byteLength; cut++) {
      const { opened, remote } = await open()
      const bytes = Buffer.concat([lines, Buffer.from("what follows")])
      for (const part of [bytes.subarray(0, cut), bytes.subarray(cut)]) {
        if (part.byteLength > 0) remote.send(part)
        await new Promise((resolve) => setImmediate(resolve))
      }
      assert.deepStrictEqual((await taken(opened, 12)).toString(), "what follows", `cut at ${cut}`)
    }
  })

  it("is aborted when the remote does not agree", async () => {
    for (const answer of ["\x13/multistream/1.0.0\n\x03na\n", "\x13/multistream/2.0.0\n", "nonsense"]) {
      const { opened, remote } = await open()
      const closed = new Promise<Error | undefined>((resolve) =>
        opened.addEventListener("close", ({ error }) => resolve(error))
      )
      remote.send(Buffer.from(answer))
      assert.strictEqual((await closed)?.name, "UnsupportedProtocolError", answer)
    }
  })

  it("is only for its protocols", async () => {
    const { opened } = await open("/other/1.0.0")
    assert.strictEqual(opened.protocol, "")
  })
})

// internal ------------------------------------------------------------------------------------------------------------

/** A stream between two muxers, from both sides; the remote side does not negotiate. */
async function open(asked = protocol): Promise<{ readonly opened: Stream; readonly remote: Stream }> {
  const [outbound, inbound] = multiaddrConnectionPair()
  const near = changed(yamux(), [eager(["/some/1.0.0", protocol])])().createStreamMuxer(outbound)
  const far = yamux()().createStreamMuxer(inbound)
  const arrived = new Promise<Stream>((resolve) => far.addEventListener("stream", ({ detail }) => resolve(detail)))
  const opened = await near.createStream({ protocol: asked })
  return { opened, remote: await arrived }
}

function taken(stream: Stream, bytes: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let all = Buffer.alloc(0)
    stream.addEventListener("message", ({ data }) => {
      all = Buffer.concat([all, data.subarray()])
      if (all.byteLength >= bytes) resolve(all)
    })
    stream.addEventListener("close", ({ error }) => reject(error ?? new Error("closed")))
  })
}
