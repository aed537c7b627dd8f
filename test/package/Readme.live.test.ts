/**
 * The README as a new user tries it: each program is compiled, and run to its end, as it is printed.
 */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { readFileSync, writeFileSync } from "node:fs"
import { connect, createServer } from "node:net"
import { join } from "node:path"
import { compile, makeProject, root, run, snippets } from "../support/Snippets.ts"

const text = readFileSync(join(root, "README.md"), "utf8")
const [first, ...uses] = snippets(text).map(({ code }) => code)
const project = makeProject()
const write = (name: string, code: string) => writeFileSync(join(project.directory, name), code)

beforeAll(() => {
  write("first.ts", first!)
  uses.forEach((code, index) => write(`use${index + 1}.ts`, code))
})
afterAll(() => project.remove())

describe("README.md", () => {
  it("is of one page: at most 150 lines", () => {
    assert.isAtMost(text.trimEnd().split("\n").length, 150)
  })

  it("begins with a program, and has six uses", () => {
    assert.include(text, `<!-- first-program -->\n\`\`\`ts\n${first}`)
    assert.strictEqual(uses.length, 6)
    assert.deepStrictEqual([...text.matchAll(/^\*\*(\d)\. /gm)].map(([, number]) => number), [
      "1",
      "2",
      "3",
      "4",
      "5",
      "6"
    ])
  })

  it("has programs that compile", async () => assert.strictEqual(await compile(project.directory), ""))

  it("prints what the first program promises", async () =>
    assert.match(await output("first.ts"), /^connected to 12D3Koo\w+, which runs codio/))

  it("use 1 is a node that listens until it is stopped", async () => {
    const port = await freePort()
    write("listening.ts", uses[0]!.replace("4001", String(port)))
    const { code, output } = await run(["listening.ts"], project.directory, (stop) => void answers(port).then(stop))
    assert.strictEqual(code, 130, output)
  })

  it("use 2 counts its peers", async () => assert.match(await output("use2.ts"), /^\d+\n$/))

  it("use 3 finds the provider", async () => assert.match(await output("use3.ts"), /^12D3Koo\w+\n$/))

  it("use 4 hears its echo", async () => assert.strictEqual(await output("use4.ts"), "hello\n"))

  it("use 5 explains the kept peer", async () => assert.match(await output("use5.ts"), /connected/))

  it("use 6 passes as a test", async () => {
    write("use6.test.ts", uses[5]!)
    write("vitest.config.mjs", "export default {}")
    const vitest = join(root, "node_modules/vitest/vitest.mjs")
    const { code, output } = await run([vitest, "run"], project.directory)
    assert.strictEqual(code, 0, output)
    assert.include(output, "1 passed")
  })
})

// internal ------------------------------------------------------------------------------------------------------------

/** What a program prints that ends by itself. */
async function output(file: string): Promise<string> {
  const { code, output, stdout } = await run([file], project.directory)
  assert.strictEqual(code, 0, output)
  return stdout
}

/** A port that nobody uses now. */
function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address()
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0))
    })
  })
}

/** Resolves when a program listens on the port. */
function answers(port: number): Promise<void> {
  return new Promise((resolve) => {
    let attempts = 0
    const attempt = () => {
      if (++attempts > 2_000) return
      const socket = connect(port, "127.0.0.1")
      socket.on("connect", () => {
        socket.destroy()
        resolve()
      })
      socket.on("error", () => setTimeout(attempt, 50))
    }
    attempt()
  })
}
