/**
 * The rules of `tidy.ts`: that the house keeps them, and that each can be broken.
 */
import { assert, describe, it } from "@effect/vitest"
import { bannedWords, lostSpecs, longFunctions, readFiles, rules, unusedExports, wideComments } from "./tidy.ts"

const files = readFiles()
const of = (entries: Readonly<Record<string, string>>) => new Map(Object.entries(entries))
const lines = (count: number) => "\n".repeat(count - 2)

describe("the house is tidy", () => {
  it("as far as there are files to look at", () => {
    for (const folder of ["src", "test", "bench", "scripts", "examples", "docs"]) {
      assert.isTrue([...files.keys()].some((path) => path.startsWith(`${folder}/`)), folder)
    }
  })

  for (const { allowed, name, problems } of rules) {
    it(name, () => {
      const found = problems(files)
      assert.isAtMost(found.length, allowed, found.join("\n"))
    })
  }
})

describe("a rule reports", () => {
  it("a function that is too long, by its name and its line", () => {
    const found = (text: string, path = "src/a.ts") => longFunctions(of({ [path]: text }))
    assert.deepStrictEqual(found(`\nconst f = () => {${lines(121)}}`), [])
    assert.deepStrictEqual(found(`\nconst f = () => {${lines(122)}}`), [
      "src/a.ts:2: f has 121 lines, at most 120 are allowed"
    ])
    assert.deepStrictEqual(found(`export const make = Effect.gen(function*() {${lines(251)}})`), [])
    assert.deepStrictEqual(found(`export const make = Effect.gen(function*() {${lines(252)}})`), [
      "src/a.ts:1: make has 251 lines, at most 250 are allowed"
    ])
    assert.deepStrictEqual(found(`const make = () => {\nrun(() => {${lines(122)}})\n}`), [
      "src/a.ts:2: a function has 121 lines, at most 120 are allowed"
    ])
    assert.deepStrictEqual(found(`class A {\n  b() {${lines(122)}}\n}`), [
      "src/a.ts:2: b has 121 lines, at most 120 are allowed"
    ])
  })

  it("a spec that is too long, and not the function that holds all specs of a unit", () => {
    const found = (text: string) => longFunctions(of({ "test/a.test.ts": text }))
    assert.deepStrictEqual(found(`describe("a", () => {\n  it("b", () => {})${lines(130)}})`), [])
    assert.deepStrictEqual(found(`describe("a", () => {\n  it("b", () => {${lines(122)}})\n})`), [
      "test/a.test.ts:2: a function has 121 lines, at most 120 are allowed"
    ])
    assert.deepStrictEqual(found(`const f = () => {\n  it.effect.each([1])("b", g)${lines(130)}}`), [])
    assert.deepStrictEqual(found(`const f = () => {\n  a("describe(b)") // it("c")${lines(121)}}`), [
      "test/a.test.ts:1: f has 121 lines, at most 120 are allowed"
    ])
  })

  it("a comment beyond 120 columns, and not a text", () => {
    const found = (text: string) => wideComments(of({ "src/a.ts": text }))
    const long = "x".repeat(120)
    assert.deepStrictEqual(found(`// ${long.slice(3)}`), [])
    assert.deepStrictEqual(found(`// ${long.slice(2)}`), ["src/a.ts:1: 121 columns"])
    assert.deepStrictEqual(found(`/**\n * ${long}\n */\nconst a = 1`), ["src/a.ts:2: 123 columns"])
    assert.deepStrictEqual(found(`const a = "// ${long}"\nconst b = \`\n/* ${long} */\``), [])
  })

  it("an export that nobody uses", () => {
    const found = (other: string, text = "export const a = 1") =>
      unusedExports(of({ "src/x/A.ts": text, "test/b.ts": other, "src/index.ts": "" }))
    assert.deepStrictEqual(found(""), ["src/x/A.ts:1: nobody uses a"])
    assert.deepStrictEqual(found(`import { b } from "../src/x/A.ts"`), ["src/x/A.ts:1: nobody uses a"])
    assert.deepStrictEqual(found(`import { a } from "../src/x/A.ts"`), [])
    assert.deepStrictEqual(found(`import { a as b } from "../src/x/A.ts"`), [])
    assert.deepStrictEqual(found(`import * as A from "../src/x/A.ts"\nA.b()`), ["src/x/A.ts:1: nobody uses a"])
    assert.deepStrictEqual(found(`import * as A from "../src/x/A.ts"\nA.a()`), [])
    assert.deepStrictEqual(found(`import * as A from "../src/x/A.ts"\nall(A)`), [])
    assert.deepStrictEqual(found("", "const a = 1\nexport { a }"), ["src/x/A.ts:2: nobody uses a"])
    assert.deepStrictEqual(found("", "const b = 1\nexport { b as a }"), ["src/x/A.ts:2: nobody uses a"])
    assert.deepStrictEqual(found(`import { a } from "../src/x/A.ts"`, "const a = 1\nexport { a }"), [])
    assert.deepStrictEqual(found(`import { a } from "../src/x/A.ts"`, "export default 1"), [
      "src/x/A.ts:1: nobody uses default"
    ])
    assert.deepStrictEqual(found(`import a from "../src/x/A.ts"`, "export default 1"), [])
    assert.deepStrictEqual(found(`const { a } = await import("../src/x/A.ts")`), [])
    assert.deepStrictEqual(found("const { a } = await import(`../src/x/${name}.ts`)"), [])
    assert.deepStrictEqual(found("", "export interface A {}\nexport interface B {}"), [
      "src/x/A.ts:1: nobody uses A",
      "src/x/A.ts:2: nobody uses B"
    ])
    assert.deepStrictEqual(
      found(`import { f } from "../src/x/A.ts"`, "export interface A {}\nexport const f = (a: A) => a"),
      []
    )
  })

  it("nothing of a file that an entry point exports", () => {
    const entry = (text: string) => unusedExports(of({ "src/A.ts": "export const a = 1", "src/index.ts": text }))
    assert.deepStrictEqual(entry(`export * as A from "./A.ts"`), [])
    assert.deepStrictEqual(entry(`export { a } from "./A.ts"`), [])
    assert.deepStrictEqual(entry(`export { b } from "./A.ts"`), ["src/A.ts:1: nobody uses a"])
  })

  it("a banned word, in names, in comments and in the documentation", () => {
    const found = (text: string, path = "src/a.ts") =>
      bannedWords(of({ [path]: text })).map((line) => line.split(";")[0])
    assert.deepStrictEqual(found("const places = placeOf(aPlace)"), [`src/a.ts:1: "places"`])
    assert.deepStrictEqual(found("const onePlace = 1"), [`src/a.ts:1: "Place"`])
    assert.deepStrictEqual(found("// It takes place now; replace the placeholder, misplaced or not."), [])
    assert.deepStrictEqual(found("// An address in IPv6 clothes."), [`src/a.ts:1: "IPv6 clothes"`])
    assert.deepStrictEqual(found("// The time is that of the peer.\nconst text = `that of`"), [`src/a.ts:1: "that of"`])
    assert.deepStrictEqual(found("// Who has it?\nconst text = `who has it`"), [`src/a.ts:1: "Who has"`])
    assert.deepStrictEqual(found("one\nIn place of it: find who has it", "docs/A.md"), [`docs/A.md:2: "place"`])
  })

  it("a spec with the name of another, or in a folder that src does not have", () => {
    const found = (...paths: ReadonlyArray<string>) =>
      lostSpecs(of(Object.fromEntries(paths.map((path) => [path, ""]))))
    assert.deepStrictEqual(found("src/x/A.ts", "test/x/A.test.ts", "test/x/A.live.test.ts", "test/sim/a.test.ts"), [])
    assert.deepStrictEqual(found("src/x/A.ts", "test/y/A.test.ts"), ["test/y/A.test.ts: there is no folder src/y"])
    assert.deepStrictEqual(found("test/sim/A.test.ts", "test/live/A.test.ts"), [
      "test/sim/A.test.ts: has the name of test/live/A.test.ts",
      "test/live/A.test.ts: has the name of test/sim/A.test.ts"
    ])
  })
})
