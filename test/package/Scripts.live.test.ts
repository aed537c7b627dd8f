/**
 * The scripts that set a bare clone up and run its programs.
 */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const root = join(import.meta.dirname, "../..")
const setup: {
  readonly isNewEnough: (version: string) => boolean
  readonly isInstalled: (directory: string) => boolean
  readonly chooseNode: (directory: string, version: string, present: string) => string | undefined
} = await import(join(root, "scripts/setup.mjs"))

const work = mkdtempSync(join(tmpdir(), "codio-network-scripts-"))
const children: Array<ChildProcess> = []
afterAll(() => {
  for (const child of children) child.kill("SIGKILL")
  rmSync(work, { recursive: true, force: true })
})

describe("the set-up", () => {
  it("takes a Node from 22.19 on", () => {
    assert.deepStrictEqual(["20.20.2", "22.18.0", "22.19.0", "23.0.0", "24.1.0"].map(setup.isNewEnough), [
      false,
      false,
      true,
      true,
      true
    ])
  })

  it("prefers the project's Node, and has none to go on with when that is missing and the present one is old", () => {
    const directory = clone("choose")
    assert.strictEqual(setup.chooseNode(directory, "20.20.2", "/present"), undefined)
    assert.strictEqual(setup.chooseNode(directory, "24.0.0", "/present"), "/present")
    const own = join(directory, "node_modules/.bin/node")
    mkdirSync(join(own, ".."), { recursive: true })
    writeFileSync(own, "")
    assert.strictEqual(setup.chooseNode(directory, "24.0.0", "/present"), own)
  })

  it("installs again when the lockfile is newer than what is installed", () => {
    const directory = clone("installed")
    assert.isFalse(setup.isInstalled(directory))
    const installed = join(directory, "node_modules/.package-lock.json")
    mkdirSync(join(installed, ".."), { recursive: true })
    writeFileSync(installed, "{}")
    utimesSync(join(directory, "package-lock.json"), 1000, 1000)
    utimesSync(installed, 1000, 1000)
    assert.isTrue(setup.isInstalled(directory))
    utimesSync(join(directory, "package-lock.json"), 1001, 1001)
    assert.isFalse(setup.isInstalled(directory))
  })

  it("leaves a node_modules alone that is a link to another one", () => {
    const directory = clone("linked")
    mkdirSync(join(work, "elsewhere"))
    symlinkSync(join(work, "elsewhere"), join(directory, "node_modules"))
    assert.isTrue(setup.isInstalled(directory))
  })
})

describe("a program run by its script", () => {
  it("gives its exit code", async () => {
    const { ended } = await start("console.log('up'); process.exitCode = 7")
    assert.deepStrictEqual(await ended, { code: 7, signal: null, output: "up\n" })
  })

  it("gives the signal that ended it", async () => {
    const { ended } = await start("console.log('up'); process.kill(process.pid, 'SIGKILL')")
    assert.deepStrictEqual(await ended, { code: null, signal: "SIGKILL", output: "up\n" })
  })

  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    it(`gets a ${signal} that only npm got`, async () => {
      const { child, ended } = await start(counting(signal))
      child.kill(signal)
      assert.deepStrictEqual(await ended, { code: 0, signal: null, output: "up\nheard\n1\n" })
    })

    it(`gets a ${signal} once that the whole process group got, and npm passed on`, async () => {
      const { child, ended } = await start(counting(signal))
      const heard = once(child.stdout, "data")
      process.kill(-child.pid!, signal)
      await heard
      child.kill(signal)
      assert.deepStrictEqual(await ended, { code: 0, signal: null, output: "up\nheard\n1\n" })
    })
  }
})

// internal ------------------------------------------------------------------------------------------------------------

function clone(name: string): string {
  const directory = join(work, name)
  mkdirSync(directory)
  writeFileSync(join(directory, "package-lock.json"), "{}")
  return directory
}

/** A program that ends half a second after its first signal, and prints how many it got. */
function counting(signal: NodeJS.Signals): string {
  return `
    let got = 0
    process.on("${signal}", () => {
      if (++got > 1) return
      console.log("heard")
      setTimeout(() => { console.log(String(got)); process.exit(0) }, 500)
    })
    setInterval(() => {}, 1000)
    console.log("up")`
}

/** Starts a program by `run.mjs`, as npm does, in a process group of its own, and waits for its first line. */
async function start(text: string) {
  const file = join(work, `program-${children.length}.mjs`)
  writeFileSync(file, text)
  const child = spawn(process.execPath, [join(root, "scripts/run.mjs"), file], {
    detached: true,
    env: { ...process.env, npm_lifecycle_event: "start" },
    stdio: ["ignore", "pipe", "inherit"]
  })
  children.push(child)
  let output = ""
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text))
  const ended = once(child, "close").then(([code, signal]) => ({ code, signal, output }))
  await once(child.stdout, "data")
  return { child, ended }
}
