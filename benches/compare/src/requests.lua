-- wrk -s requests.lua URL -- LIST PIPELINED HEADERS
local writes, at = {}, 0

function init(args)
    local headers = {}
    for line in (args[3] or ""):gmatch("[^|]+") do
        local name, value = line:match("^(.-): (.*)$")
        headers[name] = value
    end
    local pipelined, batch = tonumber(args[2]), {}
    for line in io.lines(args[1]) do
        local path, client = line:match("^(.+) (.-)$")
        headers["X-Forwarded-For"] = client
        batch[#batch + 1] = wrk.format("GET", path, headers)
        if #batch == pipelined then
            writes[#writes + 1] = table.concat(batch)
            batch = {}
        end
    end
end

function request()
    at = at % #writes + 1
    return writes[at]
end

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '{"requests":%d,"seconds":%f,"p50":%f,"p99":%f,"p999":%f,"errors":%d}\n',
        summary.requests, summary.duration / 1e6,
        latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
        errors.connect + errors.read + errors.write + errors.status + errors.timeout
    ))
end
