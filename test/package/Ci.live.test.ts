/** `.ci/run` with suites that the spec makes up. */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const root = join(import.meta.dirname, "../..")
const work = mkdtempSync(join(tmpdir(), "codio-network-ci-spec-"))
afterAll(() => rmSync(work, { recursive: true, force: true }))

describe("a run of the suites", () => {
  it("ends with the sums, above them the minutes of each suite", async () => {
    const { code, lines } = await run({ test: suite({ a: "good" }), "test:heavy": suite({ b: "good", c: "good" }) })
    assert.deepStrictEqual([code, lines.at(-1)], [0, "3 passed, 0 failed"])
    assert.match(lines.at(-3)!, /^test: 1 passed, 0 failed, in \d+\.\d minutes$/)
    assert.match(lines.at(-2)!, /^test:heavy: 2 passed, 0 failed, in \d+\.\d minutes$/)
  })

  it("fails for a script that package.json does not have", async () => {
    const { code, lines } = await run({ test: suite({ a: "good" }) }, ["test", "test:heavy"])
    assert.deepStrictEqual([code, lines.at(-1)], [1, "1 passed, 1 failed"])
    assert.include(lines, "FAILED  test:heavy: package.json has no such script")
  })

  it("runs a failed scenario again, alone, and names it when it passes then", async () => {
    const { code, lines } = await run({ "test:heavy": suite({ a: "good", b: "flaky", c: "good" }) })
    assert.deepStrictEqual([code, lines.at(-1)], [0, "3 passed, 0 failed"])
    assert.strictEqual(lines.at(-2), "flaky: test:heavy: b")
    assert.deepStrictEqual(lines.filter((line) => line.startsWith("ran")), ["ran a, b, c", "ran b"])
  })

  it("fails for a scenario that fails again, which it does not call flaky", async () => {
    const { code, lines } = await run({ "test:heavy": suite({ a: "good", b: "bad" }) })
    assert.deepStrictEqual([code, lines.at(-1)], [1, "1 passed, 1 failed"])
    assert.strictEqual(lines.at(-2), "FAILED  test:heavy: b")
    assert.notInclude(lines.join("\n"), "flaky:")
  })

  it("allows two flaky scenarios in a run, and fails for a third, of whatever suite", async () => {
    const two = await run({ "test:heavy": suite({ a: "flaky", b: "flaky" }) })
    assert.deepStrictEqual([two.code, two.lines.at(-1)], [0, "2 passed, 0 failed"])
    const three = await run({ "test:heavy": suite({ a: "flaky", b: "flaky" }), "test:faults": suite({ c: "flaky" }) })
    assert.deepStrictEqual([three.code, three.lines.at(-1)], [1, "3 passed, 1 failed"])
    assert.strictEqual(three.lines.at(-2), "flaky: test:heavy: a; test:heavy: b; test:faults: c")
  })

  it("fails for a suite that crashes before its last line, or that fails in spite of it", async () => {
    const crashed = await run({ test: suite({ a: "good" }), "test:heavy": "console.log('begun'); process.exit(3)" })
    assert.deepStrictEqual([crashed.code, crashed.lines.at(-1)], [1, "1 passed, 1 failed"])
    const odd = await run({ test: "console.log('1 passed, 0 failed'); process.exitCode = 1" })
    assert.deepStrictEqual([odd.code, odd.lines.at(-1)], [1, "1 passed, 1 failed"])
  })

  it("runs nothing again of a suite that names no scenarios", async () => {
    const { code, lines } = await run({
      test: "console.log('ran'); console.log('4 passed, 1 failed'); process.exitCode = 1"
    })
    assert.deepStrictEqual([code, lines.at(-1)], [1, "4 passed, 1 failed"])
    assert.strictEqual(lines.filter((line) => line === "ran").length, 1)
  })

  it("calls no crash a flake: of a suite with an unexplained end nothing is run again", async () => {
    const ends: ReadonlyArray<readonly [end: string, last: string]> = [
      ["process.kill(process.pid, 'SIGKILL')", "0 passed, 1 failed"],
      ["console.log('3 passed, 1 failed'); process.kill(process.pid, 'SIGSEGV')", "3 passed, 2 failed"],
      ["console.log('3 passed, 1 failed'); process.exitCode = 3", "3 passed, 2 failed"],
      ["console.log('3 passed, 1 failed')", "3 passed, 2 failed"],
      ["console.log('7 passed, 0 failed\\nand then nothing')", "0 passed, 1 failed"],
      ["console.log('0 passed, 0 failed')", "0 passed, 1 failed"]
    ]
    for (const [end, last] of ends) {
      const { code, lines } = await run({ "test:heavy": `${report(["b"], ["a"])}\n${alone(["a"])} ${end}` })
      assert.deepStrictEqual([code, lines.at(-1)], [1, last], end)
      assert.notInclude(lines.join("\n"), "once more", end)
    }
  })

  it("does not take what else a second run did for the scenario that failed", async () => {
    const fails = "console.log('1 passed, 1 failed'); process.exitCode = 1"
    const other = await run({ "test:heavy": `${report(["b"], ["a"])}\n${alone(["b", "c"])} ${fails}` })
    assert.deepStrictEqual([other.code, other.lines.at(-1)], [1, "1 passed, 1 failed"])
    assert.include(other.lines, "once more, alone: test:heavy: a")
  })

  it("goes on after a report that is torn or has another form", async () => {
    for (const text of ["{\"passed\":[\"b\"],\"fai", "null", "{\"passed\":1,\"failed\":\"a\"}"]) {
      const { code, lines } = await run({
        "test:heavy": `require("node:fs").writeFileSync(process.env.SUITE_REPORT, ${JSON.stringify(text)})
          console.log("1 passed, 1 failed"); process.exitCode = 1`,
        "test:faults": suite({ c: "good" })
      })
      assert.deepStrictEqual([code, lines.at(-1)], [1, "2 passed, 1 failed"])
    }
  })

  it("passes a suite that this machine cannot run, and that says so in its report", async () => {
    const { code, lines } = await run({ test: `${report([], [], ["no root"])}\nconsole.log("0 passed, 0 failed")` })
    assert.deepStrictEqual([code, lines.at(-1)], [0, "0 passed, 0 failed"])
  })

  it("is of suites that there are", () => {
    const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
    const [, names] = /^exec node scripts\/ci\.mjs (.+)$/m.exec(readFileSync(join(root, ".ci/run"), "utf8"))!
    assert.deepStrictEqual(names!.split(" ").filter((name) => scripts[name] === undefined), [])
    // What takes hours, of which test:twentieth is a part, and the faults that are put into a copy.
    const apart = ["test:long", "test:mutants"]
    assert.sameMembers([...names!.split(" "), ...apart], Object.keys(scripts).filter((name) => /^test(:|$)/.test(name)))
  })
})

// internal ------------------------------------------------------------------------------------------------------------

type Scenario = "good" | "bad" | "flaky"

let count = 0

/** A suite that reports as the real ones do; a flaky scenario fails where it is not alone. */
function suite(scenarios: Readonly<Record<string, Scenario>>): string {
  return `
    const { writeFileSync } = require("node:fs")
    const scenarios = Object.entries(${JSON.stringify(scenarios)})
    const only = process.env.SUITE_ONLY === undefined ? undefined : JSON.parse(process.env.SUITE_ONLY)
    const chosen = scenarios.filter(([name]) => only === undefined || only.includes(name))
    const isBad = (kind) => kind === "bad" || (kind === "flaky" && only === undefined)
    const failed = chosen.filter(([, kind]) => isBad(kind)).map(([name]) => name)
    const passed = chosen.filter(([, kind]) => !isBad(kind)).map(([name]) => name)
    console.log("ran " + chosen.map(([name]) => name).join(", "))
    writeFileSync(process.env.SUITE_REPORT, JSON.stringify({ passed, failed, leftOut: [] }))
    console.log(passed.length + " passed, " + failed.length + " failed")
    process.exitCode = failed.length === 0 ? 0 : 1`
}

/** A statement that writes a report. */
function report(passed: ReadonlyArray<string>, failed: ReadonlyArray<string>, leftOut: ReadonlyArray<string> = []) {
  const text = JSON.stringify(JSON.stringify({ passed, failed, leftOut }))
  return `require("node:fs").writeFileSync(process.env.SUITE_REPORT, ${text})`
}

/** A statement that ends the second run of a scenario, in which these passed. */
function alone(passed: ReadonlyArray<string>) {
  return `if (process.env.SUITE_ONLY !== undefined) {
    ${report(passed, [])}
    console.log("${passed.length} passed, 0 failed")
    process.exit(0)
  }`
}

/** Runs programs as the npm scripts of a package of their own. */
async function run(programs: Readonly<Record<string, string>>, names = Object.keys(programs)) {
  const directory = join(work, `run-${count++}`)
  mkdirSync(join(directory, "scripts"), { recursive: true })
  copyFileSync(join(root, "scripts/ci.mjs"), join(directory, "scripts/ci.mjs"))
  const scripts: Record<string, string> = {}
  for (const [name, program] of Object.entries(programs)) {
    const file = `${name.replace(":", "-")}.cjs`
    writeFileSync(join(directory, file), program)
    scripts[name] = `node ${file}`
  }
  writeFileSync(join(directory, "package.json"), JSON.stringify({ scripts }))
  const child = spawn(process.execPath, [join(directory, "scripts/ci.mjs"), ...names], {
    stdio: ["ignore", "pipe", "inherit"]
  })
  let output = ""
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text))
  const [code] = await once(child, "close")
  return { code: code as number, lines: output.trimEnd().split("\n") }
}
