/**
 * The versions of Node that the library runs on. Imports nothing, since an older Node fails in what would be imported.
 */

/** What is wrong with a version of Node, such as `22.18.0`; undefined when it is new enough. */
export const problemOf = (version: string): string | undefined => {
  const [major = 0, minor = 0] = version.split(".").map(Number)
  return major > 22 || (major === 22 && minor >= 19)
    ? undefined
    : `Node 22.19 or newer is needed, this is ${version}`
}
