import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import * as LogFilter from "../../src/schema/LogFilter.ts"
import { sourceFiles } from "../house/source.ts"

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

  it("takes a component within two edits of a known one for a mistake, and warns of another", () => {
    const judged = (text: string) => LogFilter.judge(filterOf(text))
    for (const right of ["dht", "dht:query", "relay", "libp2p", "libp2p:tcp", "libp2p:kad-dht:query", "peer-store"]) {
      assert.deepStrictEqual(judged(`${right}=debug`), { problems: [], warnings: [] }, right)
    }
    for (
      const [wrong, meant] of [
        ["conections", "connections"],
        ["relays", "relay"],
        ["dth2", undefined],
        ["dh", "dht"],
        ["libp2p:tpc", "libp2p:tcp"],
        ["libp2", "libp2p"],
        ["libp2p:kad-dth", "libp2p:kad-dht"]
      ] as const
    ) {
      const { problems, warnings } = judged(`${wrong}=debug`)
      if (meant === undefined) {
        assert.deepStrictEqual(problems, [], wrong)
        assert.deepStrictEqual(warnings, [`${wrong}: unknown log component, which has no effect`])
      } else {
        assert.deepStrictEqual(problems, [`${wrong}: unknown log component; did you mean ${meant}?`])
        assert.throws(() => Schema.decodeUnknownSync(LogFilter.LogFilterText)(`info,${wrong}=debug`), new RegExp(meant))
      }
    }
    assert.deepStrictEqual(judged("billing=debug").warnings, ["billing: unknown log component, which has no effect"])
    // What a connection and its streams log is below the component of their transport.
    for (const name of ["libp2p:yamux", "libp2p:ping", "libp2p:upgrader"]) {
      const warning = `${name}: unknown log component, which has no effect; did you mean libp2p?`
      assert.deepStrictEqual(judged(`${name}=debug`), { problems: [], warnings: [warning] })
    }
  })

  it("knows every component that the source logs by, and docs/README.md names it", () => {
    const used = [...sourceFiles().values()].flatMap((text) =>
      [...text.matchAll(/component: "([^"]+)"/g)].map(([, name]) => name!)
    )
    assert.isAbove(used.length, 5)
    const readme = readFileSync(join(import.meta.dirname, "../../docs/README.md"), "utf8")
    for (const name of new Set(used)) {
      assert.include(LogFilter.components, name)
      assert.include(readme, `| \`${name}\` |`)
    }
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
