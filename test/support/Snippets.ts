/**
 * The programs of a document, as a reader would run them: written beside a `node_modules` in which `codio-network` is
 * this source tree.
 */
import { spawn } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"

export const root = join(import.meta.dirname, "../..")

/** A block of code, with the number of its first line. */
export interface Snippet {
  readonly line: number
  readonly code: string
}

/** The blocks of the language in a text of Markdown. */
export const snippets = (text: string, language = "ts"): ReadonlyArray<Snippet> =>
  [...text.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, "gm"))].map((match) => ({
    line: text.slice(0, match.index).split("\n").length + 1,
    code: match[1]!
  }))

/** A directory for programs, below the project, so that they find the packages it has. */
export const makeProject = (): { readonly directory: string; readonly remove: () => void } => {
  mkdirSync(join(root, ".cache"), { recursive: true })
  const directory = mkdtempSync(join(root, ".cache", "snippets-"))
  const self = join(directory, "node_modules", "codio-network")
  mkdirSync(self, { recursive: true })
  // Node takes types away from files that are not below node_modules, and looks at where a link leads.
  symlinkSync(join(root, "src"), join(self, "src"))
  const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
  const entries = Object.entries<{ readonly default: string }>(exports).filter(([, entry]) =>
    entry.default !== undefined
  )
  writeFileSync(
    join(self, "package.json"),
    JSON.stringify({
      name: "codio-network",
      type: "module",
      exports: Object.fromEntries(entries.map(([name, entry]) => [
        name,
        entry.default.replace("./dist/", "./src/").replace(/\.js$/, ".ts")
      ]))
    })
  )
  writeFileSync(join(directory, "package.json"), JSON.stringify({ type: "module" }))
  return { directory, remove: () => rmSync(directory, { recursive: true, force: true }) }
}

/**
 * What the compiler says of the TypeScript files in the directory, at the strictness of this project; empty when it
 * finds nothing.
 */
export const compile = async (directory: string): Promise<string> => {
  const compilerOptions = { noUnusedLocals: false, noUnusedParameters: false, plugins: [] }
  writeFileSync(
    join(directory, "tsconfig.json"),
    JSON.stringify({ extends: join(root, "tsconfig.json"), compilerOptions, include: ["*.ts"] })
  )
  const { code, output } = await run([join(root, "node_modules/typescript/bin/tsc"), "-p", "."], directory)
  return code === 0 ? "" : output
}

export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly output: string
}

/** Runs Node with the arguments to its end. `started` is given the process, to end a program that would go on. */
export const run = (
  args: ReadonlyArray<string>,
  cwd: string,
  started: (stop: () => void) => void = () => {}
): Promise<Ended> => {
  const inherited = Object.entries(process.env).filter(([name]) => !/^(npm_|CODIO_|VITEST)/i.test(name))
  const env = {
    ...Object.fromEntries(inherited),
    PATH: `${dirname(process.execPath)}:${process.env.PATH}`,
    NO_COLOR: "1",
    FORCE_COLOR: "0"
  }
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { cwd, env, stdio: ["ignore", "pipe", "pipe"] })
    let stdout = ""
    let output = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text
      output += text
    })
    child.stderr.setEncoding("utf8").on("data", (text: string) => (output += text))
    const late = setTimeout(() => {
      output += "\nstill running after 150 s"
      child.kill("SIGKILL")
    }, 150_000)
    child.on("error", reject)
    child.on("close", (code) => {
      clearTimeout(late)
      resolve({ code, stdout, output })
    })
    started(() => child.kill("SIGINT"))
  })
}
