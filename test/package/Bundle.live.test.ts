/**
 * The README's first program bundled with the whole library, as an application may be: run where no package lies beside
 * it.
 */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { build } from "esbuild"
import { execFile } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { rolldown } from "rolldown"

const root = join(import.meta.dirname, "../..")
const work = mkdtempSync(join(tmpdir(), "codio-network-bundle-"))
afterAll(() => rmSync(work, { recursive: true, force: true }))

const alias = { "codio-network": join(root, "src/index.ts") }

/**
 * A dependency, `multicast-dns`, is CommonJS and requires modules of Node, which esbuild leaves to a `require` of the
 * module.
 */
const banner = `import { createRequire } from "node:module"; const require = createRequire(import.meta.url)`

type Format = "esm" | "cjs"

const bundlers: Readonly<Record<string, (entry: string, format: Format, file: string) => Promise<unknown>>> = {
  esbuild: (entry, format, outfile) =>
    build({
      entryPoints: [entry],
      outfile,
      format,
      alias,
      bundle: true,
      platform: "node",
      // The program's own imports are looked for beside the library.
      nodePaths: [join(root, "node_modules")],
      banner: format === "esm" ? { js: banner } : {},
      logLevel: "silent"
    }),
  rolldown: async (input, format, file) => {
    const bundle = await rolldown({
      input,
      platform: "node",
      resolve: { alias, modules: ["node_modules", join(root, "node_modules")] },
      logLevel: "silent"
    })
    await bundle.write({ file, format, codeSplitting: false })
  }
}

describe("the README's first program, bundled", () => {
  for (const [name, bundle] of Object.entries(bundlers)) {
    for (const format of ["esm", "cjs"] as const) {
      it(`by ${name} as ${format}, runs to its end`, async () => {
        const directory = join(work, `${name}-${format}`)
        mkdirSync(directory)
        const entry = join(directory, "program.ts")
        writeFileSync(entry, firstProgram())
        const file = join(directory, format === "esm" ? "program.mjs" : "program.cjs")
        await bundle(entry, format, file)
        const { stderr, stdout } = await promisify(execFile)(process.execPath, [file], { cwd: directory })
        assert.match(stdout, /^connected to 12D3Koo\w+, which runs codio-network\//, stderr)
      })
    }
  }

  it("needs of esbuild the line that the documentation names", () => {
    assert.include(readFileSync(join(root, "docs/ARCHITECTURE.md"), "utf8"), banner)
  })
})

// internal ------------------------------------------------------------------------------------------------------------

function firstProgram(): string {
  const program = /<!-- first-program -->\s*```ts\n([\s\S]*?)```/.exec(readFileSync(join(root, "README.md"), "utf8"))
    ?.[1]
  if (program === undefined) throw new Error("README.md has no program after <!-- first-program -->")
  return program
}
