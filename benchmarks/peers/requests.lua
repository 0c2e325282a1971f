-- For wrk: sends the bodies of a file in turn, one a line, and prints what came of it as one line of JSON.
-- BODIES, ROUTE and TOKEN come from the environment.

local prepared, turn = {}, 0

function init()
  local headers = { ["Content-Type"] = "application/json" }
  local token = os.getenv("TOKEN")
  if token and token ~= "" then
    headers["Authorization"] = "Bearer " .. token
  end
  for body in io.lines(os.getenv("BODIES")) do
    prepared[#prepared + 1] = wrk.format("POST", os.getenv("ROUTE"), headers, body)
  end
end

function request()
  turn = turn % #prepared + 1
  return prepared[turn]
end

function done(summary, latency)
  local errors = summary.errors
  local socket = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    '\n{"requests": %d, "micros": %d, "p50": %d, "p99": %d, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status, socket
  ))
end
