# Every opt-in of SECURITY.md: copy this to ENVIRONMENT.tfvars at the top, put in your own ARNs and
# names, and delete what you don't want.

# Encrypts the bucket, table, queue, log and function's environment with your key, if its policy lets it.
kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"

# Lets the table be restored to any second of the last 35 days; billed per GB.
point_in_time_recovery = true

# Makes AWS refuse to delete the table; destroy fails too, until this is false again.
deletion_protection = true

# Makes destroy refuse a bucket that still holds objects.
force_destroy = false

# Traces each run with X-Ray; billed per trace.
tracing_mode = "Active"

# Writes S3's access log into your bucket in the same region, hours late.
access_log_bucket = "access-logs-123456789012"

# Runs at most 10 functions at once; a new account can't reserve that many.
reserved_concurrency = 10

# Keeps the function's log for a year.
log_retention_days = 365

# Notifies your topic when an upload could go unrecorded.
alarm_topic_arn = "arn:aws:sns:us-east-1:123456789012:alarms"

# Limits what the function's role could ever be allowed to do.
permissions_boundary_arn = "arn:aws:iam::123456789012:policy/boundary"
