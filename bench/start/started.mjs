/**
 * Loaded before each program whose start is measured: tells of the first that it prints, with the milliseconds of
 * processor time until then.
 */
const { stdout } = process
const { write } = stdout
stdout.write = (...args) => {
  stdout.write = write
  const { system, user } = process.cpuUsage()
  process.send?.({ value: (user + system) / 1000 })
  return stdout.write(...args)
}
