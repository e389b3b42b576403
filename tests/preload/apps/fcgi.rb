# ruby-fcgi (C extension over libfcgi).
require 'fcgi'
at_exit { $stderr.puts 'END ran' }
FCGI.each do |request|
  query = request.env['QUERY_STRING'].to_s
  sleep($1.to_i / 1000.0) if query =~ /sleep=(\d+)/
  child = query.include?('child') ? `grep SigBlk /proc/self/status` : ''
  request.out.print "Content-Type: text/plain\r\n\r\nok #{$$} #{child}"
  request.finish
end
