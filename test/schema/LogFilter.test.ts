import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as LogFilter from "../../src/schema/LogFilter.ts"

const filterOf = (text: string) => Result.getOrThrow(LogFilter.parse(text))

describe("LogFilter", () => {
  it("gives a component its own level, the rest the level for everything", () => {
    const filter = filterOf("warn, dht=debug,mdns=none")
    assert.strictEqual(LogFilter.minimum(filter, "dht"), "Debug")
    assert.strictEqual(LogFilter.minimum(filter, "dht:query"), "Debug")
    assert.strictEqual(LogFilter.minimum(filter, "dhtx"), "Warn")
    assert.strictEqual(LogFilter.minimum(filter, "mdns"), "None")
    assert.strictEqual(LogFilter.lowest(filter), "Debug")
  })

  it("defaults to info, and lets the later of two entries count", () => {
    assert.strictEqual(LogFilter.minimum(filterOf(""), "dht"), "Info")
    assert.strictEqual(LogFilter.minimum(filterOf("dht=trace,"), "other"), "Info")
    assert.strictEqual(LogFilter.minimum(filterOf("debug,error"), "dht"), "Error")
  })

  it("keeps libp2p silent unless it is named, and lets the longest name decide", () => {
    assert.strictEqual(LogFilter.minimum(filterOf("trace"), "libp2p:tcp"), "None")
    const filter = filterOf("libp2p=error,libp2p:kad-dht:query=trace")
    assert.strictEqual(LogFilter.minimum(filter, "libp2p:tcp"), "Error")
    assert.strictEqual(LogFilter.minimum(filter, "libp2p:kad-dht"), "Error")
    assert.strictEqual(LogFilter.minimum(filter, "libp2p:kad-dht:query:x"), "Trace")
  })

  it("knows when something below a silent component is written", () => {
    const filter = filterOf("libp2p:kad-dht:query=trace")
    assert.isTrue(LogFilter.mentions(filter, "libp2p:kad-dht"))
    assert.isFalse(LogFilter.mentions(filter, "libp2p:kad"))
    assert.isFalse(LogFilter.mentions(filter, "libp2p:tcp"))
  })

  it("says in one line what does not read", () => {
    for (const wrong of ["loud", "dht=loud", "dht=", "=info", "dht==info", "a b=info"]) {
      const parsed = LogFilter.parse(`info,${wrong}`)
      assert.isTrue(Result.isFailure(parsed), wrong)
      if (Result.isFailure(parsed)) {
        assert.strictEqual(
          parsed.failure,
          `expected a level or component=level, as in "info,dht=debug,libp2p:tcp=trace", got "${wrong}"; ` +
            "levels are all, trace, debug, info, warn, error, fatal, none"
        )
      }
    }
  })
})
