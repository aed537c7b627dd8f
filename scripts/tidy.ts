/**
 * `npm run tidy`: prints what breaks the rules of `test/house/tidy.ts`, and the commits whose title is not
 * `area: what changed` in at most 72 characters. Exit code 1 when there is anything.
 */
import { spawnSync } from "node:child_process"
import process from "node:process"
import { readFiles, rules } from "../test/house/tidy.ts"

/** Only commits after this one are looked at. */
const since = "581e9ba"

const files = readFiles()
let count = 0
for (const { name, problems } of rules) report(name, problems(files))
const titles = history()
if (titles === undefined) console.log(`ok      no history since ${since}: the titles of commits are not looked at`)
else {
  report(
    "the title of a commit is `area: what changed`, at most 72 characters",
    titles.filter((line) =>
      !/^\w+ [a-z0-9][\w./-]*(?:, [\w./-]+)*: \S/.test(line) || line.replace(/^\w+ /, "").length > 72
    )
  )
}
process.exit(count === 0 ? 0 : 1)

// internal ------------------------------------------------------------------------------------------------------------

function report(name: string, problems: ReadonlyArray<string>): void {
  count += problems.length
  console.log(problems.length === 0 ? `ok      ${name}` : `FAILED  ${name}: ${problems.length}`)
  for (const problem of problems) console.log(`        ${problem}`)
}

/** The commits as `hash title`; undefined without a history that goes back far enough. */
function history(): ReadonlyArray<string> | undefined {
  const { status, stdout } = spawnSync("git", ["log", "--no-merges", "--format=%h %s", `${since}..HEAD`], {
    cwd: new URL("..", import.meta.url),
    encoding: "utf8"
  })
  return status === 0 ? stdout.split("\n").filter((line) => line !== "") : undefined
}
