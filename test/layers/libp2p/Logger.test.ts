import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { Libp2pLogger, makeFiltered } from "../../../src/layers/libp2p/Logger.ts"
import * as LogFilter from "../../../src/schema/LogFilter.ts"

const logging = (filter: string) => {
  const lines: Array<string> = []
  const logger = makeFiltered(
    Result.getOrThrow(LogFilter.parse(filter)),
    (level, component, message) => lines.push(`${level} ${component} ${message}`)
  )
  return { lines, logger }
}

// Fails the test when it is formatted.
const untouchable = { toString: () => assert.fail("formatted") }

describe("Libp2pLogger", () => {
  it("writes lines, traces and errors at their levels", () => {
    const { lines, logger } = logging("libp2p:tcp=trace")
    const log = logger.forComponent("libp2p:tcp")
    assert.isTrue(log.enabled)
    log("dialing %s, attempt %d", "x", 2)
    log.trace("bytes")
    log.error("failed - %e", new AggregateError([new Error("inner")], "outer"))
    assert.deepStrictEqual(lines, [
      "Debug libp2p:tcp dialing x, attempt 2",
      "Trace libp2p:tcp bytes",
      "Error libp2p:tcp failed - AggregateError: outer (Error: inner)"
    ])
  })

  it("formats libp2p's placeholders, and what it does not know", () => {
    const { lines, logger } = logging("libp2p=debug")
    const log = logger.forComponent("tcp")
    log("%p %a 100%% %b", { toString: () => "12D3" }, { toString: () => "/ip4/127.0.0.1" }, new Uint8Array([1, 2]))
    log("%o and %z", { a: 1 }, "z", "more")
    log("too few %s")
    log(new Error("alone"))
    log("%p", undefined)
    log("%p", {
      toString: () => {
        throw new Error("no text")
      }
    })
    assert.strictEqual(lines[0], "Debug libp2p:tcp 12D3 /ip4/127.0.0.1 100% 5T")
    assert.match(lines[1] ?? "", /^Debug libp2p:tcp \{ a: 1 \} and %z z more$/)
    assert.deepStrictEqual(lines.slice(2), [
      "Debug libp2p:tcp too few %s",
      "Debug libp2p:tcp Error: alone",
      "Debug libp2p:tcp undefined",
      "Debug libp2p:tcp %p (not formatted: Error: no text)"
    ])
  })

  it("neither formats nor allocates where nothing is written", () => {
    const { lines, logger } = logging("trace")
    const log = logger.forComponent("libp2p:tcp")
    assert.isFalse(log.enabled)
    assert.strictEqual(log, logger.forComponent("libp2p:upgrader"))
    assert.strictEqual(log.newScope("stream").newScope("frame"), log)
    log("%p", untouchable)
    log.trace("%p", untouchable)
    log.error("%p", untouchable)
    assert.deepStrictEqual(lines, [])
  })

  it("does not format a trace when only errors are written", () => {
    const { lines, logger } = logging("libp2p=error")
    const log = logger.forComponent("libp2p:tcp")
    assert.isFalse(log.enabled)
    log("%p", untouchable)
    log.trace("%p", untouchable)
    log.error("broken")
    assert.deepStrictEqual(lines, ["Error libp2p:tcp broken"])
  })

  it("reaches a scope below a component that is silent itself", () => {
    const { lines, logger } = logging("libp2p:kad-dht:query=trace")
    const dht = logger.forComponent("libp2p:kad-dht")
    dht.error("not written")
    dht.newScope("query").newScope("7").trace("asked")
    assert.deepStrictEqual(lines, ["Trace libp2p:kad-dht:query:7 asked"])
  })

  it.effect("is silent by default", () =>
    Effect.gen(function*() {
      const logger = yield* Libp2pLogger
      logger.forComponent("libp2p:tcp").error("%p", untouchable)
      assert.isFalse(logger.forComponent("libp2p:tcp").enabled)
    }))
})
