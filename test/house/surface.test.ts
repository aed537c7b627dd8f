/**
 * The entry points name every file that a program may use, so that a new one is not forgotten: every schema and
 * service, and every layer of every room. All else in a room is a part of it.
 */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { join, posix } from "node:path"
import * as Agent from "../../src/schema/Agent.ts"
import { parts } from "./rooms.ts"
import { importsOf, sourceFiles, withoutComments } from "./source.ts"

const files = sourceFiles()
const paths = [...files.keys()]
const textOf = (path: string) => files.get(path) ?? ""

/** What an index exports, by path below src. */
const listedIn = (index: string) =>
  new Set([...importsOf(textOf(index))].map((specifier) => posix.join(posix.dirname(index), specifier)))

const isLayer = (path: string) => /^export const layer\w*\b/m.test(withoutComments(textOf(path)))

const roomsOfLayers = [...new Set(paths.flatMap((path) => /^layers\/[^/]+(?=\/)/.exec(path) ?? []))]

describe("the entry points", () => {
  it("of the package exports every schema and service", () => {
    const listed = listedIn("index.ts")
    const expected = paths.filter((path) => /^(schema|services)\//.test(path))
    assert.isAbove(expected.length, 20)
    assert.deepStrictEqual(expected.filter((path) => !listed.has(path)), [])
  })

  it("of the layers exports every room", () => {
    const listed = listedIn("layers/index.ts")
    assert.isAbove(roomsOfLayers.length, 5)
    assert.deepStrictEqual(roomsOfLayers.filter((room) => !listed.has(`${room}/index.ts`)), [])
  })

  it("of a room begins with what the room is for, and exports its layers", () => {
    const known = new Set(parts.map(({ file }) => file))
    for (const room of roomsOfLayers) {
      const index = `${room}/index.ts`
      assert.match(textOf(index), /^\/\*\*\n \* \S/, index)
      const listed = listedIn(index)
      const layers = paths.filter((path) => path.startsWith(`${room}/`) && isLayer(path))
      assert.deepStrictEqual(layers.filter((path) => !listed.has(path) && !known.has(path)), [], index)
    }
  })

  it("leave out only parts that there are", () => {
    assert.deepStrictEqual(parts.filter(({ file }) => !files.has(file) || !isLayer(file)), [])
  })

  it("name the package and its version as package.json does", () => {
    const { name, version } = JSON.parse(readFileSync(join(import.meta.dirname, "../../package.json"), "utf8"))
    assert.deepStrictEqual({ name: Agent.packageName, version: Agent.version }, { name, version })
  })

  it("of the simulator exports every port", () => {
    const listed = listedIn("testing/index.ts")
    const expected = [
      "network/SimNetwork",
      "ports/SimTransport",
      "ports/SimDiscovery",
      "ports/SimDht",
      "ports/SimKad",
      "TestNetwork"
    ]
    assert.deepStrictEqual(expected.filter((name) => !listed.has(`testing/${name}.ts`)), [])
  })
})
