-- Asks latchkey whether a request may pass: `http-request lua.latchkey ADDRESS:PORT`.
--
-- 200 lets it pass, with latchkey's identity headers in place of whatever was there under their
-- names. Every other answer goes to the client as it is; no answer is a 503. haproxy.cfg beside
-- this file shows where it stands and what has to happen before and after it.

-- Longer than an issuer's fetch_timeout; milliseconds.
local timeout_ms = 10000

-- Of the client's headers, what a decision needs.
local asked = {
    "authorization", "x-shop-api-key", "x-widget-token", "origin", "referer", "sec-fetch-site",
}

-- What the API is told of an admitted caller. latchkey sets every one but the last in every 200.
local identity = {
    "x-auth-mechanism", "x-auth-shop-id", "x-auth-key-id", "x-auth-subject", "x-auth-scopes",
    "x-request-id",
}
local assertion = "x-auth-assertion"

-- What the client is told, refused or not; for an admitted one haproxy.cfg sets it from variables.
local told = {
    "ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining",
    "x-ratelimit-reset", "x-request-id", "access-control-allow-origin",
    "access-control-expose-headers", "vary",
}
local told_refused = { "www-authenticate", "retry-after", "content-type", "cache-control" }

local unavailable = '{"type":"urn:latchkey:problem:overloaded","title":"Overloaded","status":503,'
    .. '"detail":"The request cannot be authorized at the moment.","code":"overloaded"}'

local function question(txn)
    local scheme = "http"
    if txn.sf:ssl_fc() == "1" then
        scheme = "https"
    end
    local headers = {
        ["x-original-method"] = { txn.sf:method() },
        ["x-original-uri"] = { txn.sf:pathq() },
        ["x-original-host"] = { txn.sf:req_hdr("host") },
        ["x-original-scheme"] = { scheme },
        ["x-forwarded-for"] = { txn.sf:src() },
    }
    local sent = txn.http:req_get_headers()
    for _, name in ipairs(asked) do
        local values = sent[name]
        if values then
            -- Counted from zero. All of them: that a credential is repeated is latchkey's to see.
            local list, i = {}, 0
            while values[i] do
                list[#list + 1] = values[i]
                i = i + 1
            end
            headers[name] = list
        end
    end
    return headers
end

local function first(answer, name)
    local values = answer.headers and answer.headers[name]
    return values and values[0]
end

local function refuse(txn, status, answer)
    local reply = txn:reply({ status = status })
    for _, list in ipairs({ told, told_refused }) do
        for _, name in ipairs(list) do
            local value = first(answer, name)
            if value then
                reply:add_header(name, value)
            end
        end
    end
    reply:set_body(answer.body or "")
    txn:done(reply)
end

local function silent(txn)
    refuse(txn, 503, {
        headers = {
            ["content-type"] = { [0] = "application/problem+json" },
            ["cache-control"] = { [0] = "no-store" },
            ["retry-after"] = { [0] = "1" },
        },
        body = unavailable,
    })
end

core.register_action("latchkey", { "http-req" }, function(txn, address)
    local client = core.httpclient()
    local answer = client:get({
        url = "http://" .. address .. "/.latchkey/auth/haproxy",
        headers = question(txn),
        timeout = timeout_ms,
    })
    if not answer or not answer.status or not first(answer, "x-request-id") then
        -- latchkey names every request; an answer without a name is HAProxy's own.
        silent(txn)
        return
    end
    if answer.status ~= 200 then
        refuse(txn, answer.status, answer)
        return
    end
    for _, name in ipairs(identity) do
        local value = first(answer, name)
        if not value or value == "" then
            silent(txn)
            return
        end
        txn.http:req_set_header(name, value)
    end
    txn.http:req_del_header(assertion)
    local proof = first(answer, assertion)
    if proof then
        txn.http:req_set_header(assertion, proof)
    end
    for _, name in ipairs(told) do
        local value = first(answer, name)
        if value then
            txn:set_var("txn.latchkey_" .. name:gsub("-", "_"), value)
        end
    end
end, 1)
